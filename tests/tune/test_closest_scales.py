"""Closed-form scales against grids over an independent divergence: dense Gaussians in numpy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import bayestl as btl

RNG = np.random.default_rng(0)
# Flat parameters: a body of three numbers, a head of two.
BODY, HEAD = slice(0, 3), slice(3, 5)
PRIOR_MEAN = RNG.normal(size=5)
ROOT = RNG.normal(size=(3, 3))
PRIOR_COVARIANCE = np.zeros((5, 5))
PRIOR_COVARIANCE[BODY, BODY] = ROOT @ ROOT.T + 0.5 * np.eye(3)
PRIOR_COVARIANCE[HEAD, HEAD] = 0.3 * np.eye(2)


def tree(flat: np.ndarray) -> dict[str, jax.Array]:
    return {"body": jnp.asarray(flat[..., BODY]), "head": jnp.asarray(flat[..., HEAD])}


def divergence(mean: np.ndarray, covariance: np.ndarray, prior_covariance: np.ndarray) -> float:
    """KL(N(mean, covariance) || the prior with another covariance), nats."""
    r = mean - PRIOR_MEAN
    quadratic = np.trace(np.linalg.solve(prior_covariance, covariance)) + r @ np.linalg.solve(prior_covariance, r)
    return 0.5 * (quadratic - 5 + np.linalg.slogdet(prior_covariance)[1] - np.linalg.slogdet(covariance)[1])


def rescaled(log_factors: tuple[float, float]) -> np.ndarray:
    factors = np.exp(np.repeat(log_factors, [3, 2]))
    return np.sqrt(factors)[:, None] * PRIOR_COVARIANCE * np.sqrt(factors)


def best_on_grids(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log factors of body and head by ever finer grids; the divergence is a sum over the two."""
    best = []
    for block in ((1.0, 0.0), (0.0, 1.0)):
        center, width = 0.0, 8.0
        for _ in range(7):
            grid = center + np.linspace(-width, width, 41)
            values = [divergence(mean, covariance, rescaled((x * block[0], x * block[1]))) for x in grid]
            center, width = grid[int(np.argmin(values))], width / 10
        best.append(center)
    return np.array(best)


def prior() -> btl.gaussians.Gaussian:
    mean = tree(PRIOR_MEAN)
    head = btl.gaussians.isotropic(mean, np.sqrt(0.3))
    body = btl.gaussians.dense({"body": mean["body"], "head": None}, jnp.asarray(PRIOR_COVARIANCE[BODY, BODY]))
    return btl.gaussians.by_path({"head": head, "**": body})


def check(posterior: btl.gaussians.Gaussian, mean: np.ndarray, covariance: np.ndarray) -> None:
    closest = jax.jit(btl.tune.closest_scales)(posterior, prior())
    assert set(closest.names) == {"body", "head"}
    factors = dict(zip(closest.names, closest.factors, strict=True))
    log_factors = np.log([factors["body"], factors["head"]])
    np.testing.assert_allclose(log_factors, best_on_grids(mean, covariance), atol=1e-6)
    least = divergence(mean, covariance, rescaled(tuple(log_factors)))
    np.testing.assert_allclose(closest.divergence, least, rtol=1e-10)
    expected = np.diagonal(rescaled(tuple(log_factors)))
    np.testing.assert_allclose(ravel_pytree(closest.prior.variance)[0], expected, rtol=1e-12)


@pytest.mark.x64
def test_scales_are_the_minimum_of_a_grid_for_one_variance_and_for_correlations():
    mean, scale = RNG.normal(size=5), 0.2
    check(btl.gaussians.isotropic(tree(mean), scale), mean, scale**2 * np.eye(5))
    # Correlations between the blocks too.
    root = RNG.normal(size=(5, 5)) / 2
    covariance = root @ root.T + 0.01 * np.eye(5)
    check(btl.gaussians.dense(tree(mean), jnp.asarray(covariance)), mean, covariance)


@pytest.mark.x64
def test_the_gradient_of_the_divergence_is_that_of_finite_differences():
    at = np.array([*RNG.normal(size=5), np.log(0.2)])

    @jax.jit
    def gradient(x: jax.Array) -> jax.Array:
        def value(x: jax.Array) -> jax.Array:
            mean = {"body": x[BODY], "head": x[HEAD]}
            variance = jax.tree.map(lambda _: jnp.exp(2 * x[5]), mean)
            return btl.tune.closest_scales(btl.gaussians.Diagonal(mean, variance), prior()).divergence

        return jax.grad(value)(x)

    def value(x: np.ndarray) -> float:
        """Of the best scales, by the formula for tau in each block."""
        covariance, r = np.exp(2 * x[5]) * np.eye(5), x[:5] - PRIOR_MEAN
        log_factors = []
        for block in (BODY, HEAD):
            inverse = np.linalg.inv(PRIOR_COVARIANCE[block, block])
            log_factors.append(
                np.log((np.exp(2 * x[5]) * np.trace(inverse) + r[block] @ inverse @ r[block]) / len(inverse))
            )
        return divergence(x[:5], covariance, rescaled((log_factors[0], log_factors[1])))

    differences = [(value(at + 1e-5 * e) - value(at - 1e-5 * e)) / 2e-5 for e in np.eye(6)]
    np.testing.assert_allclose(gradient(jnp.asarray(at)), differences, rtol=1e-7, atol=1e-8)


def test_a_small_step_from_the_prior_keeps_its_digits_in_float32():
    """log(1 + x) at x = 1e-9: the difference of two logarithms would be 0."""
    mean = {"w": jnp.full(4, 1e-5)}
    q, p = btl.gaussians.isotropic(mean, 0.3), btl.gaussians.isotropic({"w": jnp.zeros(4)}, 0.3)
    gradient = jax.jit(jax.grad(lambda q: btl.tune.closest_scales(q, p).divergence))(q).mean["w"]
    np.testing.assert_allclose(gradient, 1e-5 / 0.3**2, rtol=1e-5)  # theta / s^2, to first order


def test_a_posterior_over_other_parameters_is_refused():
    one = btl.gaussians.isotropic({"w": jnp.zeros(2)}, 1.0)
    with pytest.raises(ValueError, match="posterior"):
        btl.tune.closest_scales(btl.gaussians.isotropic({"v": jnp.zeros(2)}, 1.0), one)
    flat: Any = None
    with pytest.raises(TypeError, match="prior"):
        btl.tune.closest_scales(one, flat)
