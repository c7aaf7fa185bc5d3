"""Compiled programs that serve again: only where they compute the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl
from bayestl.training import _programs

ROOT = Path(__file__).parent.parent.parent
X = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]


def _joint() -> Any:
    net = btl.nets.from_function(lambda params, x: x[:, 0] * params["w"], {"w": jnp.zeros(())})
    return btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=8)


def _fitted(transform: Any, rate: float = 0.1) -> float:
    joint, data = _joint(), btl.data.arrays(X, X[:, 0])
    method = btl.infer.map_estimate(joint, optax.sgd(rate))
    settings = {"steps": 1, "batch_size": 8, "progress": False, "transform": transform}
    return float(btl.fit(jax.random.key(0), method, {"w": jnp.zeros(())}, data, **settings).params["w"])


def test_functions_on_the_host_are_told_apart():
    """A program names a function on the host by a number alone: two of them read the same."""

    def scaled(factor: float) -> Any:
        def on_host(targets: Any) -> Any:
            return np.asarray(factor * np.asarray(targets), np.float32)

        def transform(key: Any, batch: btl.Batch) -> btl.Batch:
            shape = jax.ShapeDtypeStruct(batch.targets.shape, jnp.float32)
            return batch._replace(targets=jax.pure_callback(on_host, shape, batch.targets))

        return transform

    # One step from 0: rate * mean(x * factor * x).
    mean_square = float(np.mean(X.astype(np.float64) ** 2))
    for factor in (1.0, 3.0):
        np.testing.assert_allclose(_fitted(scaled(factor)), 0.1 * factor * mean_square, rtol=1e-6)


def test_a_method_made_anew_takes_the_program_there_is():
    _fitted(None)
    before = list(_programs._compiled)
    _fitted(None)
    assert list(_programs._compiled) == before
    _fitted(lambda key, batch: batch._replace(targets=2 * batch.targets))
    assert list(_programs._compiled) != before


def test_few_programs_are_held():
    for scale in range(_programs.MAX_PROGRAMS + 3):
        _fitted(lambda key, batch, scale=scale: batch._replace(targets=(1.0 + scale) * batch.targets))
    assert len(_programs._compiled) == _programs.MAX_PROGRAMS


def test_large_arrays_that_a_program_closes_over_are_its_arguments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_programs, "_MAX_CONSTANTS", 1000)
    x = jnp.arange(300.0)

    def made(factor: float) -> Any:
        large = jnp.full(300, factor)

        def function(_: None, x: Any, other: Any) -> Any:
            return {"product": jax.lax.fori_loop(0, 2, lambda _, y: y * large, x), "other": other + 1}

        return function

    latest: list[Any] = []
    for factor in (2.0, 3.0):
        other = jnp.zeros(5)
        program = _programs.program(made(factor), None, x, other, donate=(1,))
        assert program.memory_analysis().argument_size_in_bytes == 4 * (300 + 300 + 5)
        results = program(x, other)
        np.testing.assert_allclose(results["product"], factor**2 * np.arange(300.0))
        np.testing.assert_array_equal(results["other"], np.ones(5))
        assert other.is_deleted()
        latest.append(next(reversed(_programs._compiled)))
    assert latest[0] == latest[1]  # one program for both, since the arrays are no part of it


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what is resident is read from Linux's /proc")
def test_many_fits_with_fresh_optimizers_stay_in_a_hundred_megabytes():
    # Compiled anew, without a cache on disk. Blocks above 1 MB go back to the system at once.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "MALLOC_MMAP_THRESHOLD_": "1000000"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, str(ROOT / "tests" / "training" / "fresh_optimizers.py"), "200"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    used = json.loads(done.stdout.splitlines()[-1])
    assert used["end"] - used["start"] < 100e6
