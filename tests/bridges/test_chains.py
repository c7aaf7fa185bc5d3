"""What chains say about how well they mixed, against processes whose mixing is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl


def chains_of(x: np.ndarray) -> btl.bridges.Chains:
    """(chains, draws) numbers as chains of a parameter vector of length one."""
    flat = jnp.asarray(x, jnp.float32).reshape(-1, 1)
    return btl.bridges.Chains({"w": flat}, jnp.zeros(flat.size), jnp.zeros(x.shape, bool), jnp.ones(x.shape))


def autoregressive(correlation: float, chains: int, draws: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = np.zeros((chains, draws))
    x[:, 0] = rng.normal(size=chains)
    for i in range(1, draws):
        x[:, i] = correlation * x[:, i - 1] + np.sqrt(1 - correlation**2) * rng.normal(size=chains)
    return x


def test_effective_sample_size_of_an_autoregression():
    chains = chains_of(autoregressive(0.5, 8, 5000))
    # S (1 - rho) / (1 + rho); its own error at 40,000 draws is a few percent.
    np.testing.assert_allclose(chains.effective_sample_size()["w"], 40_000 / 3, rtol=0.15)
    # The process squared has the correlation 0.25 at lag 1.
    squares = chains.effective_sample_size(lambda params: params["w"][0] ** 2)
    np.testing.assert_allclose(squares, 40_000 * 0.75 / 1.25, rtol=0.15)
    assert chains.r_hat()["w"] < 1.01


def test_r_hat_sees_chains_apart():
    x = autoregressive(0.0, 4, 1000) + np.array([[0.0], [0.0], [2.0], [2.0]])
    # Of the variance of all draws, 1 + 4/3 as eight half chains estimate it (2.14), 1 lies within chains.
    halves = np.repeat([0.0, 0.0, 2.0, 2.0], 2)
    np.testing.assert_allclose(chains_of(x).r_hat()["w"], np.sqrt(1 + halves.var(ddof=1)), rtol=0.05)
    assert chains_of(x).effective_sample_size()["w"] < 20


def test_chains_lie_one_after_another():
    x = np.arange(12.0).reshape(3, 4)
    chains = chains_of(x)
    np.testing.assert_array_equal(chains.by_chain()["w"][..., 0], x)
    np.testing.assert_array_equal(chains.by_chain(lambda params: -params["w"][0]), -x)
    assert isinstance(chains, btl.Samples)
    assert chains.sample(jax.random.key(0), 5)["w"].shape == (5, 1)


def test_they_pass_through_programs_and_count_divergences():
    chains = chains_of(np.zeros((2, 3)))
    again = jax.jit(lambda c: c)(chains)
    assert type(again) is btl.bridges.Chains
    assert again.num_divergences == 0
    diverging = jnp.array([[True, False, True], [False, False, True]])
    assert btl.bridges.Chains(chains.draws, chains.log_weights, diverging, chains.accept_prob).num_divergences == 3
