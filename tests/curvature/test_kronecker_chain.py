"""Kronecker curvature under a posterior by Kronecker curvature, against dense sums in numpy's float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import curvature, gaussians

KEY = jax.random.key(0)
SIZE = 13
UNITS = {"b": jnp.eye(SIZE)[:, :3], "w": jnp.eye(SIZE)[:, 3:12].reshape(SIZE, 3, 3), "z": jnp.eye(SIZE)[:, 12:]}


def _matrix(gaussian):
    rows = jax.vmap(gaussian.covariance_mv)(UNITS)
    return np.concatenate([np.asarray(x).reshape(SIZE, -1) for x in jax.tree.leaves(rows)], axis=1)


def _problem(num):
    """Three outputs, weights (3, 3) with their bias, and a parameter z in no layer."""
    rng = np.random.default_rng(1)
    params = {"b": jnp.zeros(3), "w": jnp.zeros((3, 3)), "z": jnp.zeros(1)}
    net = btl.nets.from_function(lambda p, x: x @ p["w"] + p["b"] + p["z"] * x[:, :1], params)
    prior = gaussians.isotropic(params, 1.5)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=num)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
    return joint, params, 2 * jnp.asarray(rng.normal(size=(num, 3))), jnp.arange(num) % 3


@jax.jit
def _laplace(joint, params, inputs, targets):
    posterior = btl.infer.laplace(KEY, joint, params, btl.data.arrays(inputs, targets), curvature=curvature.kronecker())
    evidence = curvature.kronecker()(KEY, joint, params, btl.Batch(inputs, targets), curvature.ggn, 6)
    return posterior, evidence.log_det_ratio(joint.prior, 1.0)


@pytest.mark.x64
def test_the_same_data_twice_count_twice():
    joint, params, inputs, targets = _problem(6)
    once, lowered = _laplace(joint, params, inputs, targets)
    twice, lowered_again = _laplace(joint.replace(prior=once), params, inputs, targets)
    assert [type(block).__name__ for block in twice.blocks()] == ["Kronecker", "Diagonal"]
    prior = 1.5**2 * np.eye(SIZE)
    gained = np.linalg.inv(_matrix(once)) - np.linalg.inv(prior)
    truth = np.linalg.inv(np.linalg.inv(prior) + 2 * gained)
    np.testing.assert_allclose(_matrix(twice), truth, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        lowered + lowered_again, np.linalg.slogdet(prior)[1] - np.linalg.slogdet(truth)[1], rtol=1e-9
    )


@pytest.mark.x64
def test_other_data_are_added_as_well_as_one_basis_can():
    joint, params, inputs, targets = _problem(6)
    once, _ = _laplace(joint, params, inputs, targets)
    other, _ = _laplace(joint, params, inputs[:, ::-1] ** 2, targets)
    both, lowered = _laplace(joint.replace(prior=once), params, inputs[:, ::-1] ** 2, targets)
    prior = 1.5**2 * np.eye(SIZE)
    truth = np.linalg.inv(_matrix(once)) + np.linalg.inv(_matrix(other)) - np.linalg.inv(prior)
    found = _matrix(both)
    # The diagonal of the precision in the basis of the posterior, its eigenvectors, is that of the sum.
    values, vectors = np.linalg.eigh(found)
    np.testing.assert_allclose(1 / values, np.diag(vectors.T @ truth @ vectors), rtol=1e-9)

    def divergence(covariance):
        return 0.5 * (np.trace(truth @ covariance) - SIZE - np.linalg.slogdet(truth @ covariance)[1])

    old = np.linalg.eigh(_matrix(once))[1]
    kept = old @ np.diag(1 / np.diag(old.T @ truth @ old)) @ old.T
    forgotten, nothing_new = _matrix(other), _matrix(once)
    assert divergence(found) < min(map(divergence, (kept, forgotten, nothing_new)))
    assert divergence(found) > 1e-4
    # At the least divergence the trace in it is that of the identity, so that what is left is between determinants.
    exact = np.linalg.slogdet(truth)[1] + np.linalg.slogdet(nothing_new)[1]
    np.testing.assert_allclose(lowered, exact + 2 * divergence(found), rtol=1e-9)


@pytest.mark.x64
def test_an_isotropic_matrix_normal_is_an_isotropic_prior():
    joint, params, inputs, targets = _problem(6)
    eyes = {"b": 1.5**2 * jnp.eye(1), "w": 1.5**2 * jnp.eye(3), "z": 1.5**2 * jnp.eye(1)}
    prior = gaussians.kronecker(params, eyes, {"b": jnp.eye(3), "w": jnp.eye(3), "z": jnp.eye(1)})
    prior = gaussians.by_path({"z": gaussians.isotropic({"z": jnp.zeros(1)}, 1.5), "**": prior}, like=params)
    builder = curvature.kronecker(bias=curvature.separate)
    data = btl.data.arrays(inputs, targets)
    found, truth = (
        btl.infer.laplace(KEY, joint.replace(prior=p), params, data, curvature=builder) for p in (prior, joint.prior)
    )
    np.testing.assert_allclose(_matrix(found), _matrix(truth), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="a posterior by the same bias="):
        btl.infer.laplace(KEY, joint.replace(prior=prior), params, data, curvature=curvature.kronecker())
