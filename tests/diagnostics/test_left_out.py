"""The largest curvature that a posterior leaves out, against eigenvalues from numpy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import curvature
from bayestl.diagnostics import left_out

KEY = jax.random.key(0)
NUM, SIZE = 15, 6


def _case(**tempers: float) -> tuple[btl.LogJoint, Any, np.ndarray, np.ndarray]:
    """A linear-Gaussian problem, its data, its curvature X^T X / s^2 and the covariance of its prior."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(NUM, SIZE)), rng.normal(size=NUM)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(4)}
    net = btl.nets.from_function(lambda p, x: x @ jnp.concatenate([p["a"], p["b"]]), params)
    factor = rng.normal(size=(2, SIZE))
    prior = btl.gaussians.low_rank(params, 0.5, {"a": jnp.asarray(factor[:, :2]), "b": jnp.asarray(factor[:, 2:])})
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.7), prior, num_data=NUM, **tempers)
    covariance = 0.5 * np.eye(SIZE) + factor.T @ factor
    return joint, btl.data.arrays(inputs, targets), inputs.T @ inputs / 0.7**2, covariance


def _laplace(joint: Any, data: Any, builder: Any, **settings: Any) -> Any:
    mode = {"a": jnp.ones(2), "b": jnp.ones(4)}
    return btl.infer.laplace(KEY, joint, mode, data, curvature=builder, batch_size=4, **settings)


@pytest.mark.x64
@pytest.mark.parametrize(("kappa", "temperature", "rank"), [(1.0, 1.0, 1), (2.0, 0.5, 3)])
def test_of_a_low_rank_it_is_the_next_eigenvalue(kappa, temperature, rank):
    joint, data, hessian, covariance = _case(kappa=kappa, temperature=temperature)
    values = kappa * np.sort(np.linalg.eigvals(covariance @ hessian).real)[::-1]
    posterior = _laplace(joint, data, curvature.low_rank(rank, num_steps=SIZE))
    np.testing.assert_allclose(left_out(KEY, joint, posterior, data, batch_size=4), values[rank], rtol=1e-8)


@pytest.mark.x64
@pytest.mark.parametrize("builder", [curvature.dense(), curvature.dual(), curvature.low_rank(SIZE)])
def test_of_the_whole_curvature_nothing_is_left_out(builder):
    joint, data, _, _ = _case(kappa=2.0, temperature=0.5)
    assert left_out(KEY, joint, _laplace(joint, data, builder), data, batch_size=4) < 1e-8


@pytest.mark.x64
def test_of_a_diagonal_it_is_what_correlations_would_add():
    joint, data, hessian, covariance = _case()
    posterior = _laplace(joint, data, curvature.diagonal())
    own = np.linalg.inv(np.diag(np.diag(hessian)) + np.linalg.inv(covariance))
    expected = np.linalg.eigvals(own @ (hessian + np.linalg.inv(covariance))).real.max() - 1
    np.testing.assert_allclose(left_out(KEY, joint, posterior, data, batch_size=4), expected, rtol=1e-8)


@pytest.mark.x64
def test_under_the_flat_prior_and_for_a_part():
    joint, data, _, _ = _case()
    flat = joint.replace(prior=None)
    posterior = _laplace(flat, data, curvature.dense())
    assert left_out(KEY, flat, posterior, data) < 1e-8
    np.testing.assert_allclose(left_out(KEY, flat, posterior.rescale(3.0), data), 2.0, rtol=1e-8)
    part = _laplace(joint, data, curvature.dense(), selection="b")
    assert left_out(KEY, joint, part, data) < 1e-8


def test_it_stays_in_float32_beside_tempers_of_float64():
    joint, data, _, _ = _case()
    posterior = _laplace(joint, data, curvature.dual())
    with jax.enable_x64(True):
        # Rounding of float32 in eigenvalues of 1.
        assert left_out(KEY, joint, posterior, data) < 1e-4


def test_refuses():
    joint, data, _, _ = _case()
    with pytest.raises(TypeError, match="a Point has no precision to compare curvature with; give a Gaussian"):
        left_out(KEY, joint, btl.Point(joint.prior.mean), data)
