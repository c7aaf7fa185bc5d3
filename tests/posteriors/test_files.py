"""Posteriors in files: what comes back is what was saved, and what is no such file is refused with words."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.posteriors import Chain, Part

KEY = jax.random.key(0)
PARAMS = {"body": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "head": (jnp.ones(3), jnp.zeros(()))}


def _draws(lead: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: jax.random.normal(KEY, (*lead, *x.shape)), PARAMS)


def _part(make: Any) -> Part:
    random = btl.tree.select(PARAMS, "head/**")
    return Part(make(random), btl.tree.complement(PARAMS, random))


def _kinds() -> dict[str, Any]:
    diagonal = btl.gaussians.isotropic(PARAMS, 0.5)
    low_rank = btl.gaussians.low_rank(PARAMS, 0.1, _draws((2,)))
    stats = {"accept_prob": jnp.linspace(0, 1, 4)}
    return {
        "point": btl.Point(PARAMS),
        "samples": btl.Samples(_draws((3,)), jnp.array([0.0, -1.0, -jnp.inf])),
        "chain": Chain(_draws((4,)), jnp.zeros(4), _draws((2,)), jnp.array([0, 0, 1, 1]), stats),
        "chains of fit_many": Chain(_draws((2, 3)), jnp.zeros((2, 3)), _draws((2,))),
        "diagonal": diagonal,
        "low rank": low_rank,
        "by path": btl.gaussians.by_path({"head/**": diagonal, "**": low_rank}),
        "mixture": btl.Mixture((diagonal, btl.Point(PARAMS), low_rank), jnp.log(jnp.array([1.0, 2.0, 3.0]))),
        "part": _part(lambda random: btl.gaussians.isotropic(random, 2.0)),
        "part, chain": _part(lambda random: Chain(jax.tree.map(lambda x: x[None], random), jnp.zeros(1), random)),
        "mixture of parts": btl.Mixture((_part(btl.Point), _part(btl.Point)), jnp.zeros(2)),
    }


def _assert_equal(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", list(_kinds()))
def test_every_kind_comes_back_to_the_last_bit(name, tmp_path):
    posterior = _kinds()[name]
    net = btl.nets.from_function(lambda params, x: x, PARAMS)
    state = {"mean": jnp.arange(3.0), "count": jnp.array(7), "seen": [jnp.array(True), None]}
    btl.save(tmp_path / "file", posterior, net_state=state, settings={"steps": 5, "note": "a"})
    for given in (None, net):
        loaded = btl.load(tmp_path / "file", given)
        assert type(loaded.posterior) is type(posterior)
        _assert_equal(loaded.posterior, posterior)
        _assert_equal(loaded.net_state, state)
        assert loaded.settings == {"steps": 5, "note": "a"}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_dtypes_and_keys_of_a_state(tmp_path):
    state = {
        "low": jnp.array([1.5, -2.0], jnp.bfloat16),
        "half": jnp.array(0.5, jnp.float16),
        "key": jax.random.key(3),
        "bytes": jnp.arange(3, dtype=jnp.uint8),
    }
    btl.save(tmp_path / "file", btl.Point({"w": jnp.zeros(1, jnp.bfloat16)}), net_state=state)
    loaded = btl.load(tmp_path / "file")
    assert loaded.params["w"].dtype == jnp.bfloat16
    drawn = jax.random.normal(loaded.net_state.pop("key"), (3,))
    np.testing.assert_array_equal(drawn, jax.random.normal(state.pop("key"), (3,)))
    _assert_equal(loaded.net_state, state)


class _Layer(NamedTuple):
    kernel: Any
    bias: Any


def test_other_containers_are_those_of_the_network(tmp_path):
    params = {"layer": _Layer(jnp.ones((2, 2)), jnp.zeros(2))}
    net = btl.Net(params, _Layer(jnp.ones(1), jnp.zeros(1)), lambda params, state, inputs, key: (inputs, state))
    btl.save(tmp_path / "file", btl.gaussians.isotropic(params, 0.1), net_state=net.state)
    loaded = btl.load(tmp_path / "file", net)
    assert isinstance(loaded.params["layer"], _Layer)
    assert isinstance(loaded.net_state, _Layer)
    with pytest.raises(ValueError, match="containers other than dict, list and tuple"):
        btl.load(tmp_path / "file")


def test_a_network_it_is_not_for(tmp_path):
    def net(params: Any) -> btl.Net:
        return btl.nets.from_function(lambda params, x: x, params)

    btl.save(tmp_path / "file", btl.Samples({"w": jnp.zeros((5, 3))}, jnp.zeros(5)))
    with pytest.raises(ValueError, match=r"draws at 'w' has shape \(5, 3\) in the file, and \(4,\) in the network"):
        btl.load(tmp_path / "file", net({"w": jnp.zeros(4)}))
    with pytest.raises(ValueError, match="only in the file 'w'; only in the network 'v'"):
        btl.load(tmp_path / "file", net({"v": jnp.zeros(3)}))


def test_refuses_to_save(tmp_path):
    with pytest.raises(TypeError, match=r"a Loaded cannot be saved; give a Gaussian or one of bayestl\.posteriors"):
        btl.save(tmp_path / "file", btl.posteriors.Loaded(None, None, {}))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="settings cannot be written, since they are not a JSON object"):
        btl.save(tmp_path / "file", btl.Point(PARAMS), settings={"a": jnp.ones(2)})
    with pytest.raises(ValueError, match="a posterior with tracers cannot be saved"):
        jax.jit(lambda params: btl.save(tmp_path / "file", btl.Point(params)))(PARAMS)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        btl.save(tmp_path / "none" / "file", btl.Point(PARAMS))
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- hostile files


def _changed(path: Path, change: Any) -> None:
    """The file with its header changed by ``change``."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    outer = json.loads(data[8 : 8 + length])
    header = json.loads(outer["__metadata__"]["header"])
    change(header)
    outer["__metadata__"]["header"] = json.dumps(header).replace(
        '"NESTED"', '{"list": [' * 10_000 + "0" + "]}" * 10_000
    )
    text = json.dumps(outer).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _set(path: list[Any], value: Any) -> Any:
    def change(header: Any) -> None:
        for name in path[:-1]:
            header = header[name]
        header[path[-1]] = value

    return change


PARAMETERS = ["posterior", "trees", "params"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(["version"], 2), "format version 2, and this bayestl reads up to 1: upgrade bayestl"),
        (_set(["version"], True), "version True is not a positive integer"),
        (_set(["more"], 1), "its fields are"),
        (_set(["settings"], []), "its fields are"),
        (_set(["posterior", "kind"], "pickle"), "of no known kind"),
        (_set(["posterior", "kind"], "samples"), "has other fields than such ones have"),
        (_set(["posterior", "inner"], [0]), "is made of 1 others"),
        (_set([*PARAMETERS, "prefix"], "net_state"), "the arrays of 'posterior/params' are said to be at 'net_state'"),
        (_set([*PARAMETERS, "leaves", 0, "shape"], [3, 2]), "is F32 of shape \\(2, 3\\), and F32 of shape \\(3, 2\\)"),
        (_set([*PARAMETERS, "leaves", 0, "shape"], [-1]), "has the shape \\[-1\\], which is none"),
        (
            _set([*PARAMETERS, "leaves", 0, "dtype"], "object"),
            "has the dtype 'object', which is none that can be saved",
        ),
        (_set([*PARAMETERS, "leaves", 0, "dtype"], "int32"), "and I32 of shape"),
        (_set([*PARAMETERS, "leaves", 0, "path"], "x"), "header and arrays disagree: missing"),
        (_set([*PARAMETERS, "leaves", 1, "path"], "body/kernel"), "have one path"),
        (_set([*PARAMETERS, "containers"], {"list": [0, 1, 2]}), "containers and the paths of the leaves disagree"),
        (_set([*PARAMETERS, "containers"], {"eval": []}), "is not a container"),
        (_set([*PARAMETERS, "containers"], "NESTED"), "its header is nested too deeply"),
    ],
)
def test_headers_that_lie(change, message, tmp_path):
    btl.save(tmp_path / "file", btl.Point(PARAMS))
    _changed(tmp_path / "file", change)
    with pytest.raises(ValueError, match=message):
        btl.load(tmp_path / "file")


def test_weights_that_do_not_fit(tmp_path):
    for posterior, message in (
        (btl.Samples({"w": jnp.zeros((3, 1))}, jnp.zeros(2)), r"'draws/w' has shape \(3, 1\), and log_weights \(2,\)"),
        (btl.Samples({"w": jnp.zeros((1, 1))}, jnp.array([jnp.nan])), "each finite or -inf"),
        (btl.Mixture((btl.Point(PARAMS),), jnp.zeros(2)), r"has shape \(2,\) for a mixture of 1"),
    ):
        btl.save(tmp_path / "file", posterior)
        with pytest.raises(ValueError, match=message):
            btl.load(tmp_path / "file")


def test_files_that_are_none(tmp_path):
    path = tmp_path / "file"
    btl.save(path, btl.gaussians.isotropic(PARAMS, 1.0))
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=r"is a folder; give a file that btl\.save wrote"):
        btl.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        btl.load(tmp_path / "none")
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="another kind of file, or was cut"):
        btl.load(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="another kind of file"):
        btl.load(path)
    btl.gaussians.save(path, btl.gaussians.isotropic(PARAMS, 1.0))
    with pytest.raises(ValueError, match=r"not a posterior that btl\.save wrote"):
        btl.load(path)


def test_flipped_bytes_raise_a_value_error_or_are_numbers(tmp_path):
    path = tmp_path / "file"
    btl.save(path, _kinds()["mixture of parts"], settings={"a": 1})
    whole = bytearray(path.read_bytes())
    rng, (length,) = np.random.default_rng(0), struct.unpack("<Q", whole[:8])
    for _ in range(150):
        changed = bytearray(whole)
        changed[rng.integers(8 + length)] = rng.integers(256)
        path.write_bytes(changed)
        try:
            loaded = btl.load(path)
        except ValueError:
            continue
        assert isinstance(loaded.posterior, btl.Mixture)
