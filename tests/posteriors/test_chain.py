"""Chains that stay apart when their draws are put together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.diagnostics import by_chain, r_hat
from bayestl.posteriors import Chain, pooled


def _stacked(x: np.ndarray, filled: list[int] | None = None) -> Chain:
    """(chains, draws) numbers as ``fit_many`` gives them, the first ``filled`` rows of each chain holding a draw."""
    num_chains, num = x.shape
    weights = np.where(np.arange(num) < np.array(filled or [num] * num_chains)[:, None], 0.0, -np.inf)
    return Chain({"w": jnp.asarray(x)[..., None]}, jnp.asarray(weights), {"w": jnp.asarray(x[:, -1:])})


def test_pooled_chains_know_which_draw_is_whose():
    x = np.arange(12.0).reshape(3, 4)
    together = pooled(_stacked(x, [4, 2, 3]))
    assert isinstance(together, Chain)
    np.testing.assert_array_equal(together.draws["w"][:, 0], [0, 1, 2, 3, 4, 5, 8, 9, 10])
    np.testing.assert_array_equal(together.chain, [0, 0, 0, 0, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(together.params["w"][:, 0], [3, 7, 11])
    # The last two of each, as many as the shortest has.
    np.testing.assert_array_equal(by_chain(together)["w"][..., 0], [[2, 3], [4, 5], [9, 10]])
    again = jax.jit(lambda chain: chain)(together)
    assert type(again) is Chain
    assert again.sample(jax.random.key(0), 5)["w"].shape == (5, 1)


def test_a_chain_that_is_stuck_is_seen_in_the_pool_too():
    x = np.random.default_rng(0).normal(size=(4, 500))
    x[3] = 3 + 0.01 * x[3]
    # The finding that pooling must not lose: r_hat of the chains themselves.
    expected = r_hat(x)
    assert expected > 1.3
    np.testing.assert_allclose(r_hat(by_chain(pooled(_stacked(x)))["w"][..., 0]), expected, rtol=1e-6)


def test_pools_of_pools_and_of_chains_one_by_one():
    x = np.arange(12.0).reshape(3, 4)
    stacked = _stacked(x)
    one = jax.tree.map(lambda leaf: leaf[2], stacked)
    two = pooled(jax.tree.map(lambda leaf: leaf[:2], stacked))
    together = pooled([two, one])
    assert isinstance(together, Chain)
    np.testing.assert_array_equal(by_chain(together)["w"][..., 0], x)
    np.testing.assert_array_equal(together.params["w"][:, 0], [3, 7, 11])


def test_what_the_sampler_says_stays_beside_its_draws():
    x = np.arange(6.0).reshape(2, 3)
    stacked = _stacked(x, [3, 2])
    named = Chain(stacked.draws, stacked.log_weights, stacked.params, stats={"accept_prob": jnp.asarray(x / 10)})
    together = pooled(named)
    assert isinstance(together, Chain)
    np.testing.assert_allclose(together.stats["accept_prob"], [0, 0.1, 0.2, 0.3, 0.4], atol=1e-6)


def test_draws_without_an_order_make_no_chain():
    one = jax.tree.map(lambda leaf: leaf[0], _stacked(np.ones((1, 3))))
    mixed = pooled([one, btl.Samples({"w": jnp.zeros((2, 1))}, jnp.zeros(2))])
    assert type(mixed) is btl.Samples
    assert mixed.draws["w"].shape == (5, 1)


def test_pooled_refuses():
    with pytest.raises(ValueError, match="pooled got no chains"):
        pooled([])
    with pytest.raises(ValueError, match="the chains hold no draws: every row has log weight -inf"):
        pooled(btl.Samples({"w": jnp.zeros((2, 3, 1))}, jnp.full((2, 3), -jnp.inf)))
