"""Values, gradients and Hessians where formulas switch branches or overflow: at 0, near it, far out, at infinity."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bayestl import likelihoods

POINTS = np.array([0.0, -0.0, 1e-30, -1e-30, 100.0, -100.0, np.inf, -np.inf])


def _logistic(f: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-f))


def _log_logistic(f: np.ndarray) -> np.ndarray:
    return np.minimum(f, 0) - np.log1p(np.exp(-np.abs(f)))


def _all(function):
    """Value, derivative and second derivative at every point, in float32."""
    each = lambda fn: jax.jit(jax.vmap(fn))(jnp.asarray(POINTS, jnp.float32))  # noqa: E731
    return each(function), each(jax.grad(function)), each(jax.grad(jax.grad(function)))


BINARY = {
    "bernoulli": lambda y: lambda f: likelihoods.bernoulli()(f[None]).log_prob(jnp.array([y]))[0],
    "bernoulli from a function": lambda y: (
        lambda f: likelihoods.from_function(lambda f: dist.BernoulliLogits(f).to_event(1))(f[None, None]).log_prob(
            jnp.array([[y]])
        )[0]
    ),
    # Two classes, of which the other has logit 0.
    "categorical": lambda y: (
        lambda f: likelihoods.categorical()(jnp.stack([jnp.zeros_like(f), f])[None]).log_prob(jnp.array([y]))[0]
    ),
    "categorical from a function": lambda y: (
        lambda f: likelihoods.from_function(dist.CategoricalLogits)(jnp.stack([jnp.zeros_like(f), f])[None]).log_prob(
            jnp.array([y])
        )[0]
    ),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("target", [0, 1])
def test_classes(name, target):
    value, gradient, hessian = _all(BINARY[name](target))
    p = _logistic(POINTS)
    np.testing.assert_allclose(value, _log_logistic(POINTS if target else -POINTS), rtol=1e-6, atol=1e-37)
    # float32 loses exp(-100), which is below its smallest number
    np.testing.assert_allclose(gradient, target - p, rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(hessian, -p * (1 - p), rtol=1e-6, atol=1e-37)


def test_normal():
    value, gradient, hessian = _all(lambda f: likelihoods.normal(2.0)(f[None]).log_prob(jnp.array([1.0]))[0])
    np.testing.assert_allclose(value, -((1 - POINTS) ** 2) / 8 - np.log(2) - 0.5 * np.log(2 * np.pi), rtol=1e-6)
    np.testing.assert_allclose(gradient, (1 - POINTS) / 4, rtol=1e-6)
    np.testing.assert_allclose(hessian, np.full(len(POINTS), -0.25), rtol=1e-6)


def test_hessian_roots_are_finite():
    points = jnp.asarray(POINTS, jnp.float32)
    p = _logistic(POINTS)
    root = likelihoods.hessian_root(likelihoods.bernoulli(), points, None)
    np.testing.assert_allclose(root[0] ** 2, p * (1 - p), rtol=1e-6, atol=1e-37)
    logits = jnp.stack([jnp.zeros_like(points), points], axis=1)
    columns = likelihoods.hessian_root(likelihoods.categorical(), logits, None)
    np.testing.assert_allclose(jnp.sum(columns[..., 1] ** 2, axis=0), p * (1 - p), rtol=1e-5, atol=1e-37)


def test_a_traced_label_outside_the_classes_is_no_class():
    log_prob = jax.jit(lambda labels: likelihoods.categorical()(jnp.zeros((4, 3))).log_prob(labels))
    np.testing.assert_array_equal(np.isnan(log_prob(jnp.array([-1, 0, 2, 3]))), [True, False, False, True])
    yes_or_no = jax.jit(lambda labels: likelihoods.bernoulli()(jnp.zeros(4)).log_prob(labels))
    np.testing.assert_array_equal(np.isnan(yes_or_no(jnp.array([-1, 0, 1, 2]))), [True, False, False, True])
