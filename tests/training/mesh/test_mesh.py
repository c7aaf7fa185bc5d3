"""Runs on a mesh: eight devices, or two processes with four each, find what one device finds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

import bayestl as btl
from bayestl import _placement

ROOT = Path(__file__).parent.parent.parent.parent


def start(out: Path, *arguments: Any) -> subprocess.Popen:
    command = [sys.executable, str(Path(__file__).parent / "runs.py"), str(out), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(processes: list[subprocess.Popen]) -> None:
    try:
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output[-3000:]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("one") / "out.npz"
    finish([start(out, 1)])
    return dict(np.load(out))


def assert_same(results: Any, one_device: dict[str, np.ndarray], ways: dict[str, tuple[str, ...]]) -> None:
    compared = 0
    for name, wanted in one_device.items():
        method, rest = name.split("/", 1)
        for way in ways[method]:
            found = results[f"{method}, {way}/{rest}"]
            # float64: sums of hundreds of terms in another order, 40 steps; the ELBO is a difference of sums near 1e3.
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11, err_msg=f"{way}: {name}")
            compared += 1
    assert compared >= 3 * len(one_device) > 60


def test_eight_devices_find_what_one_finds(one_device, tmp_path):
    finish([start(tmp_path / "out.npz", 8)])
    ways = ("replicated", "sharded", "resumed")
    assert_same(np.load(tmp_path / "out.npz"), one_device, {"map": (*ways, "moved"), "vi": ways})


def test_two_processes_find_what_one_finds(one_device, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    finish([start(tmp_path / "out.npz", 4, process, port) for process in (0, 1)])
    ways = ("replicated", "sharded", "resumed")
    assert_same(np.load(tmp_path / "out.npz"), one_device, {"map": ways, "vi": ways})


def small_mesh() -> Mesh:
    return jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))


PARAMS = {"body": {"kernel": jnp.ones((6, 4)), "bias": jnp.ones(3)}, "head": jnp.ones((2, 4))}
SPECS = {"body/kernel": ("data",), "body/bias": ("data",), "head": (None, "data")}


def test_parameters_are_split_along_their_longest_axis():
    params = btl.shard_params(PARAMS, small_mesh(), "data")
    assert {p: tuple(x.sharding.spec) for p, x in btl.tree.by_paths(params).items()} == SPECS


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((8, 16, 3), (None, "data")),
        ((16, 8), ("data",)),
        ((9, 8), (None, "data")),
        ((3, 5), ()),
        ((), ()),
        ((0, 3), ()),
    ],
)
def test_only_axes_that_the_mesh_divides_are_split(shape, spec):
    assert _placement._longest(shape, 8, "data") == PartitionSpec(*spec)


@pytest.mark.parametrize(
    ("tree", "owned"),
    [
        (btl.gaussians.low_rank(PARAMS, PARAMS, btl.tree.normal_like(jax.random.key(0), PARAMS, 5)), 6),
        (btl.gaussians.diagonal(PARAMS, PARAMS), 6),
        (optax.adam(1e-3).init(PARAMS), 6),
        (optax.sgd(1e-3, momentum=0.9).init(PARAMS), 3),
    ],
    ids=["low rank", "diagonal", "adam", "momentum"],
)
def test_gaussians_and_states_are_laid_out_as_their_parameters(tree, owned):
    mesh = small_mesh()
    placed = _placement.place_alike(tree, btl.shard_params(PARAMS, mesh, "data"), mesh)
    shapes = {path: x.ndim for path, x in btl.tree.by_paths(PARAMS).items()}
    found = 0
    for path, leaf in btl.tree.by_paths(placed).items():
        owner = next((p for p in SPECS if path.endswith("/" + p)), None)
        lead = () if owner is None else (None,) * (leaf.ndim - shapes[owner])
        assert leaf.sharding == NamedSharding(mesh, PartitionSpec(*lead, *SPECS.get(owner, ()))), path
        found += owner is not None
    assert found >= owned


def test_what_lies_on_the_mesh_stays():
    mesh = small_mesh()
    mine = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec()))
    placed = _placement.place_alike(mine, btl.shard_params(PARAMS, mesh, "data"), mesh)
    assert all(x is y for x, y in zip(jax.tree.leaves(placed), jax.tree.leaves(mine), strict=True))


def fit(batch_size: int, sharding: Any) -> btl.FitResult:
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=12)
    data = btl.data.arrays(np.ones((12, 2)), np.ones(12))
    inference = btl.infer.map_estimate(joint, optax.sgd(0.1))
    options = {"steps": 3, "batch_size": batch_size, "progress": False}
    return btl.fit(jax.random.key(0), inference, net.params, data, sharding=sharding, **options)


def over(spec: Any, kind: AxisType = AxisType.Auto) -> NamedSharding:
    mesh: Any = AbstractMesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    return NamedSharding(mesh, PartitionSpec(*spec))


@pytest.mark.parametrize(
    ("batch_size", "sharding", "message"),
    [
        (10, over(["data"]), r"batch_size 10 does not divide over the 4 devices of mesh axis data; .* \(8 or 12\)"),
        (2, over(["data"]), r"batch_size 2 does not divide over the 4 devices of mesh axis data; .* of 4 \(4\)"),
        (12, over([("data", "model")]), r"batch_size 12 does not divide over the 8 devices of mesh axis data, model"),
        (12, over([]), r"a batch is split along its first axis alone: PartitionSpec\('data'\)"),
        (12, over([None, "data"]), r"a batch is split along its first axis alone"),
        (12, over(["data"], AxisType.Explicit), r"Explicit.*the compiler places arrays on Auto axes"),
    ],
)
def test_a_sharding_that_does_not_fit_is_refused(batch_size, sharding, message):
    with pytest.raises(ValueError, match=message):
        fit(batch_size, sharding)


def test_what_is_no_sharding_is_refused():
    with pytest.raises(TypeError, match=r"sharding is a Mesh; give how a batch lies on a mesh"):
        fit(12, small_mesh())


def test_an_axis_that_the_mesh_lacks_is_refused():
    with pytest.raises(ValueError, match=r"axis 'model' is not an axis of the mesh, which has \('data',\)"):
        btl.shard_params(PARAMS, small_mesh(), "model")
