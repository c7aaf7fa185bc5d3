"""Spread against variances that are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.diagnostics import spread, widest_direction

KEY = jax.random.key(0)


def _prior() -> btl.gaussians.Gaussian:
    mean = {"w": jnp.zeros(2), "b": jnp.zeros(1)}
    return btl.gaussians.diagonal(mean, {"w": jnp.array([1.0, 4.0]), "b": jnp.array([9.0])})


def test_of_gaussians_draws_mixtures_and_points():
    prior = _prior()
    posterior = btl.gaussians.diagonal(prior.mean, {"w": jnp.array([0.5, 1.0]), "b": jnp.array([9.0])})
    assert spread(KEY, posterior, prior) == pytest.approx({"w": (0.5 + 0.25) / 2, "b": 1.0})

    rng = np.random.default_rng(0)
    draws = {"w": rng.normal(size=(6, 2)), "b": rng.normal(size=(6, 1))}
    weights = np.array([1.0, 2.0, 1.0, 1.0, 0.5, 3.0])
    expected = {}
    for path, scale in (("w", np.array([1.0, 4.0])), ("b", np.array([9.0]))):
        expected[path] = np.mean(np.diag(np.atleast_2d(np.cov(draws[path].T, aweights=weights))) / scale)
    samples = btl.Samples(jax.tree.map(jnp.asarray, draws), jnp.log(jnp.asarray(weights)))
    assert spread(KEY, samples, prior) == pytest.approx(expected, rel=1e-5)

    # Chains of fit_many, a row of which holds no draw.
    stacked = btl.posteriors.Chain(
        jax.tree.map(lambda x: jnp.asarray(x).reshape(2, 3, -1), draws), jnp.array([[0.0, 0, 0], [0, 0, -jnp.inf]]), {}
    )
    first = {path: np.var(x[:5], axis=0, ddof=1) for path, x in draws.items()}
    known = {"w": np.mean(first["w"] / [1, 4]), "b": np.mean(first["b"] / 9)}
    assert spread(KEY, stacked, prior) == pytest.approx(known, rel=1e-5)

    assert spread(KEY, btl.Point(prior.mean), prior) == {"w": 0.0, "b": 0.0}
    mixture = btl.Mixture((posterior, posterior), jnp.zeros(2))
    found = spread(KEY, mixture, prior, num_samples=4000)
    # Variances of 4000 draws: 2.2 % each.
    assert found == pytest.approx({"w": 0.375, "b": 1.0}, rel=0.1)
    with pytest.raises(TypeError, match="relative to the prior's variance, and a NoneType has none"):
        spread(KEY, posterior, None)


def test_widest_direction():
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(2, 3))
    mean = {"w": jnp.zeros(2), "b": jnp.zeros(1)}
    tree = {"w": jnp.asarray(factor[:, 1:]), "b": jnp.asarray(factor[:, :1])}
    largest = np.linalg.eigvalsh(0.1 * np.eye(3) + factor.T @ factor)[-1]
    np.testing.assert_allclose(widest_direction(btl.gaussians.low_rank(mean, 0.1, tree)), largest, rtol=1e-4)
