"""Chains apart, from every sampler here; and ArviZ."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.diagnostics import by_chain, expected_targets, to_arviz


def _one() -> btl.posteriors.Chain:
    return btl.posteriors.Chain({"w": jnp.arange(10.0).reshape(5, 2)}, jnp.zeros(5), {"w": jnp.zeros(2)})


def _many() -> btl.posteriors.Chain:
    weights = jnp.where(jnp.arange(5) < jnp.array([[5], [3]]), 0.0, -jnp.inf)
    return btl.posteriors.Chain({"w": jnp.arange(20.0).reshape(2, 5, 2)}, weights, {"w": jnp.zeros((2, 2))})


def _nuts() -> btl.posteriors.Chain:
    stats = {"diverging": jnp.zeros(6, bool), "accept_prob": jnp.ones(6)}
    chain, now = jnp.repeat(jnp.arange(2), 3), {"w": jnp.zeros((2, 2))}
    return btl.posteriors.Chain({"w": jnp.arange(12.0).reshape(6, 2)}, jnp.zeros(6), now, chain, stats)


def test_by_chain():
    np.testing.assert_array_equal(by_chain(_one())["w"], np.arange(10.0).reshape(1, 5, 2))
    # The second chain stopped after 3 draws: the last 3 of each.
    rows = np.arange(20.0).reshape(2, 5, 2)
    np.testing.assert_array_equal(by_chain(_many())["w"], [rows[0, 2:5], rows[1, :3]])
    np.testing.assert_array_equal(by_chain(_nuts())["w"], np.arange(12.0).reshape(2, 3, 2))
    sums = by_chain(_many(), lambda params: {"sum": params["w"].sum()})["sum"]
    np.testing.assert_array_equal(sums, [rows[0, 2:5].sum(-1), rows[1, :3].sum(-1)])


def test_expected_targets():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros((2, 3))})
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=4)
    inputs, params = jnp.ones((4, 2)), {"w": jnp.arange(6.0).reshape(2, 3)}
    probs = np.exp(np.asarray(inputs @ params["w"]))
    found = expected_targets(joint, inputs)(params)
    np.testing.assert_allclose(found, probs / probs.sum(1, keepdims=True), rtol=1e-5)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=4)
    np.testing.assert_allclose(expected_targets(joint, inputs)(params), inputs @ params["w"], rtol=1e-6)


def test_refuses():
    with pytest.raises(TypeError, match="posterior is a Samples, and not a chain; its draws have no order in time"):
        by_chain(btl.Samples({"w": jnp.zeros((3, 2))}, jnp.zeros(3)))
    with pytest.raises(TypeError, match="posterior is a Diagonal, and not a chain; give one of infer"):
        by_chain(btl.gaussians.isotropic({"w": jnp.zeros(2)}, 1.0))
    empty = btl.posteriors.Chain({"w": jnp.zeros((2, 3, 1))}, jnp.array([[0.0] * 3, [-jnp.inf] * 3]), {})
    with pytest.raises(ValueError, match="chain 1 holds no draws; leave it out"):
        by_chain(empty)


@pytest.mark.parametrize("make", [_one, _many, _nuts])
def test_to_arviz(make: Any):
    pytest.importorskip("arviz")
    exported: Any = to_arviz(make())
    np.testing.assert_array_equal(exported.posterior["w"], by_chain(make())["w"])
    assert hasattr(exported, "sample_stats") == (make is _nuts)
    function: Any = to_arviz(make(), lambda params: params["w"].sum())
    np.testing.assert_array_equal(function.posterior["value"], by_chain(make(), lambda params: params["w"].sum()))


def test_to_arviz_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "arviz", None)
    with pytest.raises(ImportError, match="to_arviz needs ArviZ: pip install arviz"):
        to_arviz(_one())
    assert jax.devices()
