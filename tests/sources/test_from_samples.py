"""Draws as a Gaussian: numpy's covariance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.sources import from_samples

WEIGHTS = np.array([0.1, 0.6, 0.3])


def _tree(rows):
    return {"a": rows[:, :4].reshape(-1, 2, 2), "b": rows[:, 4:]}


def _covariance(prior) -> np.ndarray:
    flat, unravel = jax.flatten_util.ravel_pytree(prior.mean)
    units = jnp.eye(len(flat), dtype=flat.dtype)
    return np.asarray(jax.vmap(lambda v: jax.flatten_util.ravel_pytree(prior.covariance_mv(unravel(v)))[0])(units))


@pytest.mark.x64
@pytest.mark.parametrize(
    ("num", "eps", "kind"),
    [(3, 0.3, btl.gaussians.LowRank), (8, 0.3, btl.gaussians.Dense), (30, 0.0, btl.gaussians.Dense)],
)
def test_is_the_sample_covariance(num, eps, kind):
    rows = np.random.default_rng(num).normal(size=(num, 7))
    prior = from_samples(_tree(rows), eps=eps)
    assert isinstance(prior, kind)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(prior.mean)[0], rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(_covariance(prior), np.cov(rows.T) + eps * np.eye(7), rtol=1e-10, atol=1e-12)


@pytest.mark.x64
@pytest.mark.parametrize("repeats", [1, 3])
def test_weights(repeats):
    rows = np.random.default_rng(0).normal(size=(3 * repeats, 7))
    weights = np.tile(WEIGHTS, repeats) / repeats
    # Log weights need not be normalised.
    prior = from_samples(btl.Samples(_tree(rows), np.log(weights) + 3.0), eps=0.1)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(prior.mean)[0], weights @ rows, rtol=1e-12)
    truth = np.cov(rows.T, aweights=weights) + 0.1 * np.eye(7)
    np.testing.assert_allclose(_covariance(prior), truth, rtol=1e-10, atol=1e-12)


def test_half_precision_draws_are_held_in_float32():
    prior = from_samples({"w": jnp.array([[1.0, 2.0], [2.0, 5.0]], jnp.float16)}, eps=0.1)
    assert prior.mean["w"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("samples", "eps", "error", "message"),
    [
        ({"w": jnp.ones((1, 3))}, 0.1, ValueError, r"samples need one leading axis S >= 2 .* \[1\]"),
        ({"w": jnp.ones((4, 3)), "b": jnp.ones(5)}, 0.1, ValueError, r"leading lengths are \[4, 5\]"),
        ({"w": jnp.ones((4, 3)), "b": jnp.ones(())}, 0.1, ValueError, r"leading lengths are \[0, 4\]"),
        ({"w": jnp.ones((4, 3))}, -0.1, ValueError, "eps is -0.1; the floor of the variances must be 0 or more"),
        ({"w": jnp.ones((2, 3))}, 0.0, ValueError, "diagonal .*<= 0 .*add a floor eps > 0"),
        ({"w": jnp.ones((2, 3)).at[0, 0].set(jnp.inf)}, 0.1, ValueError, "mean at 'w' has 1 non-finite of 3 values"),
        ({"w": jnp.ones((4, 3), int)}, 0.1, TypeError, "samples at 'w' has dtype int32"),
    ],
)
def test_refuses(samples, eps, error, message):
    with pytest.raises(error, match=message):
        from_samples(samples, eps=eps)


def test_refuses_a_singular_covariance():
    rows = np.random.default_rng(0).normal(size=(9, 2))
    with pytest.raises(ValueError, match="covariance"):
        from_samples({"w": jnp.asarray(np.hstack([rows, np.zeros((9, 1))]))}, eps=0.0)
