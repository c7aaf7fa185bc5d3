"""Which target parameter is which source parameter, and what is said about it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import bayestl as btl
from bayestl.sources import match

SOURCE = {
    "conv": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)},
    "head": {"kernel": jnp.full((3, 1000), 7.0)},
    "counter": jnp.float32(3.0),
}
TARGET = {"conv": {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))}, "head": {"kernel": jnp.full((3, 10), 0.5)}}


def test_reuses_what_is_there_and_keeps_the_initialisation_of_what_is_new(capsys):
    found = match(SOURCE, TARGET, new=["head/**"])
    assert jax.tree.structure(found.params) == jax.tree.structure(TARGET)
    np.testing.assert_array_equal(found.params["conv"]["kernel"], SOURCE["conv"]["kernel"])
    np.testing.assert_array_equal(found.params["conv"]["bias"], np.ones(3))
    np.testing.assert_array_equal(found.params["head"]["kernel"], np.full((3, 10), 0.5))
    assert found.reused == ("conv/bias", "conv/kernel")
    assert found.new == ("head/kernel",)
    assert sorted(found.unused) == ["counter", "head/kernel"]
    assert capsys.readouterr().out.splitlines() == [
        "reused: 2 arrays, 9 parameters: 'conv/bias', 'conv/kernel'",
        "new:    1 arrays, 30 parameters: 'head/kernel'",
        "unused: 2 arrays of the source: " + ", ".join(map(repr, found.unused)),
    ]
    match(SOURCE, TARGET, new=["head/**"], verbose=False)
    assert capsys.readouterr().out == ""


def test_new_parameters_are_new_even_where_the_source_has_their_like():
    found = match(SOURCE, TARGET, new=["head/**", "**/bias"], verbose=False)
    np.testing.assert_array_equal(found.params["conv"]["bias"], np.zeros(3))
    assert found.new == ("conv/bias", "head/kernel")
    assert "conv/bias" in found.unused


def test_the_same_trees_need_no_patterns():
    found = match(TARGET, jax.tree.map(lambda x: x + 1, TARGET), verbose=False)
    assert found.new == ()
    assert found.unused == ()
    assert jax.tree.all(jax.tree.map(np.array_equal, found.params, TARGET))


def test_rename():
    source = {"layer1": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}}
    names = {"layer1/w": "conv/kernel", "layer1/b": "conv/bias"}
    found = match(source, TARGET, new=["head/**"], rename=names.__getitem__, verbose=False)
    np.testing.assert_array_equal(found.params["conv"]["kernel"], np.ones((2, 3)))
    assert found.unused == ()
    other = {**source, "extra": jnp.ones(3)}
    found = match(other, TARGET, new=["head/**"], rename=lambda path: names.get(path, "old/" + path), verbose=False)
    assert found.unused == ("extra",), "paths of the source are given in its own names"


def test_dtypes_are_the_targets():
    source = {"w": np.array([1.5, 2.5], np.float64), "v": jnp.array([1.5], jnp.bfloat16)}
    target = {"w": jnp.zeros(2, jnp.float32), "v": jnp.zeros(1, jnp.float32)}
    found = match(source, target, verbose=False)
    assert {x.dtype.name for x in jax.tree.leaves(found.params)} == {"float32"}
    assert found.params["v"][0] == 1.5


def test_containers_are_the_targets():
    state = nnx.State({"conv": {"kernel": nnx.Param(jnp.ones((2, 3))), "bias": nnx.Param(jnp.ones(3))}})
    found = match(state, TARGET, new=["head/**"], verbose=False)
    assert jax.tree.structure(found.params) == jax.tree.structure(TARGET)
    np.testing.assert_array_equal(found.params["conv"]["kernel"], np.ones((2, 3)))
    back = match(TARGET, state, verbose=False)
    assert jax.tree.structure(back.params) == jax.tree.structure(state)
    np.testing.assert_array_equal(jax.tree.leaves(back.params)[1], np.zeros((2, 3)))
    assert back.unused == ("head/kernel",)
    pair = match({"0": jnp.ones(2), "1": jnp.zeros(1)}, (jnp.zeros(2), jnp.ones(1)), verbose=False)
    assert isinstance(pair.params, tuple)
    assert pair.params[0].tolist() == [1.0, 1.0]


def test_names_may_hold_slashes():
    source = {"a/b": jnp.ones(1), "a": {"b": jnp.full(1, 2.0)}}
    found = match(source, {"a": {"b": jnp.zeros(1)}, "a/b": jnp.zeros(1)}, verbose=False)
    assert (found.params["a"]["b"][0], found.params["a/b"][0]) == (2.0, 1.0)


def test_params_can_start_a_run_under_a_prior_from_the_source():
    found = match(SOURCE, TARGET, new=["head/**"], verbose=False)
    prior = btl.gaussians.by_path(
        {
            "head/**": btl.gaussians.isotropic(btl.tree.zeros_like(found.params), 1.0),
            "**": btl.sources.point(SOURCE, 0.1),
        },
        like=found.params,
    )
    assert prior.squared_mahalanobis(found.params) == pytest.approx(30 * 0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"source and target differ at 'head/kernel': \(3, 1000\) against \(3, 10\); name it in new=\[...\]"),
        ({"new": ["top/**"]}, "pattern 'top/.*' matches no parameter; the paths are 'conv/bias', 'conv/kernel', 'head"),
        (
            {"new": ["head/**"], "target": {**TARGET, "norm": jnp.ones(3)}},
            r"target parameter 'norm' of shape \(3,\) is not in the source, which has .*; name it in new=\[...\] if it "
            "is new, or map names with rename",
        ),
        (
            {"new": ["head/**"], "rename": lambda path: "conv/bias" if path == "counter" else path},
            "rename gives 'conv/bias' to both 'con.*' and 'co.*'; names must stay distinct",
        ),
    ],
)
def test_refuses(changes, message):
    given = {"target": TARGET, "verbose": False, **changes}
    with pytest.raises(ValueError, match=message):
        match(SOURCE, **given)


def test_refuses_integers():
    quantised = {**SOURCE, "conv": jax.tree.map(lambda x: x.astype(jnp.int8), SOURCE["conv"])}
    with pytest.raises(TypeError, match="source parameter 'conv/bias' has dtype int8; weights must be floating point"):
        match(quantised, TARGET, new=["head/**"], verbose=False)
    with pytest.raises(TypeError, match="target at 'conv/bias' has dtype int32; parameters must be floating point"):
        match(SOURCE, {**TARGET, "conv": {"bias": jnp.zeros(3, int)}}, verbose=False)
    counting = {**SOURCE, "counter": jnp.int32(3)}
    assert "counter" in match(counting, TARGET, new=["head/**"], verbose=False).unused
