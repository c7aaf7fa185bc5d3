"""What fit takes of memory is what was estimated before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import bayestl as btl

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.slow
@pytest.mark.parametrize(("method", "copies"), [("map", 2), ("vi", 6)])
def test_the_estimate_is_what_a_large_run_takes(method, copies):
    # Blocks above 1 MB go back to the system at once, so that what is resident is what is in use.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "MALLOC_MMAP_THRESHOLD_": "1000000"}
    command = [sys.executable, str(ROOT / "tests" / "training" / "memory_run.py"), method]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    copy = 4 * 5_000_000
    assert found["start"] == copy
    # Parameters and momenta, or means, log scales and two moments of each.
    assert found["states"] == pytest.approx(3 * copies * copy, rel=1e-3)
    # Mean and 20 columns; the diagonal is one number.
    assert found["method"] == pytest.approx(21 * copy, rel=1e-3)
    held = found["method"] + found["data"] + found["start"]
    # Within a tenth: the runtime's own buffers and threads come on top.
    assert held + found["rise"] == pytest.approx(found["total"], rel=0.1)


NET = btl.nets.mlp(jax.random.key(0), (20, 30, 3))
DATA = btl.data.arrays(np.zeros((40, 20), np.float32), np.zeros(40, int))


def inference(prior: Any) -> btl.Inference:
    joint = btl.LogJoint(NET, btl.likelihoods.categorical(), prior, num_data=40)
    return btl.infer.map_estimate(joint, optax.sgd(1e-2, momentum=0.9))


def factor(rank: int) -> Any:
    return btl.tree.normal_like(jax.random.key(1), NET.params, rank)


def test_shapes_will_do_for_parameters_and_prior():
    prior = btl.gaussians.low_rank(NET.params, 1.0, factor(3))
    from_arrays = btl.estimate_memory(inference(prior), NET.params, DATA)
    shapes = jax.eval_shape(lambda: prior)
    from_shapes = btl.estimate_memory(inference(shapes), jax.eval_shape(lambda: NET.params), DATA)
    assert from_shapes == from_arrays


def test_every_part_is_counted():
    size = 4 * btl.tree.size(NET.params)
    found = btl.estimate_memory(inference(btl.gaussians.isotropic(NET.params, 1.0)), NET.params, DATA, batch_size=10)
    assert found.data == 40 * 20 * 4 + 40 * 4
    assert found.start == size
    assert found.states == 3 * 2 * size
    assert size <= found.method <= size + 100
    # Two gradients or activations more than nothing, and less than ten copies.
    assert size <= found.scratch <= 10 * size
    assert found.history == pytest.approx(100 * 3 * 4, abs=200)
    assert found.total == sum(found)
    assert "MiB" in str(found)
    assert "scratch" in str(found)


def test_batches_and_columns_take_room():
    one = btl.estimate_memory(inference(btl.gaussians.low_rank(NET.params, 1.0, factor(2))), NET.params, DATA)
    two = btl.estimate_memory(inference(btl.gaussians.low_rank(NET.params, 1.0, factor(5))), NET.params, DATA)
    assert two.method - one.method == pytest.approx(3 * 4 * btl.tree.size(NET.params), abs=100)
    small = btl.estimate_memory(inference(None), NET.params, DATA, batch_size=2)
    large = btl.estimate_memory(inference(None), NET.params, DATA, batch_size=40)
    assert large.scratch > small.scratch


def test_nothing_is_run():
    def fails(key: Any, batch: Any) -> Any:
        jax.debug.callback(lambda: pytest.fail("the program ran"))
        return batch

    btl.estimate_memory(inference(None), NET.params, DATA, transform=fails)
    jax.effects_barrier()


def test_on_a_mesh():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    over = NamedSharding(mesh, PartitionSpec("data"))
    params = btl.shard_params(NET.params, mesh, "data")
    prior = btl.gaussians.low_rank(NET.params, 1.0, factor(3))
    found = btl.estimate_memory(inference(prior), params, DATA, sharding=over)
    alone = btl.estimate_memory(inference(prior), NET.params, DATA)
    assert (found.start, found.states, found.method) == (alone.start, alone.states, alone.method)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 41}, "batch_size 41 is not between 1 and the 40 examples"),
        ({"chunk_size": 0}, "chunk_size is 0"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        btl.estimate_memory(inference(None), NET.params, DATA, **options)
