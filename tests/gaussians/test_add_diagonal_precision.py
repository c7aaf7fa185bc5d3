"""A diagonal on top of a precision, against dense float64 algebra."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_cases import BY_NAME, draw_problem, flat, sizes

import bayestl as btl
from bayestl import gaussians

NAMES = ["isotropic leaves", "diagonal", "broadcast", "low rank", "low rank broadcast", "low rank negative", "dense"]
NAMES += ["blocks", "low rank on low rank", "low rank on blocks"]


@pytest.mark.x64
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_dense_algebra(name):
    problem = draw_problem(BY_NAME[name], "tuple", 5)
    added = jax.tree.map(lambda x: np.exp(2 * x), problem.params)
    leaves, treedef = jax.tree.flatten(added)
    leaves[0] = np.zeros_like(leaves[0])  # of which the data say nothing
    added = jax.tree.unflatten(treedef, leaves)

    @jax.jit
    def queried(mean, ingredients, added):
        g = BY_NAME[name].build(mean, ingredients)
        result, ratio = g.add_diagonal_precision(added), g.diagonal_log_det_ratio(added)
        unflat = jax.flatten_util.ravel_pytree(mean)[1]
        units = jax.vmap(unflat)(jnp.eye(btl.tree.size(mean)))
        return result.mean, jax.vmap(result.covariance_mv)(units), result.log_det_covariance(), ratio

    mean, covariance, log_det, ratio = queried(problem.mean, problem.ingredients, added)
    truth = np.linalg.inv(np.linalg.inv(problem.covariance) + np.diag(flat(added)))
    rows = np.concatenate([np.reshape(x, (sum(sizes(mean)), -1)) for x in jax.tree.leaves(covariance)], 1)
    np.testing.assert_allclose(rows, truth, rtol=1e-9, atol=1e-9 * np.max(truth))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(truth)[1], rtol=1e-9)
    lost = np.linalg.slogdet(problem.covariance)[1] - np.linalg.slogdet(truth)[1]
    np.testing.assert_allclose(ratio, lost, rtol=1e-9)
    np.testing.assert_array_equal(flat(mean), flat(problem.mean))


def test_a_low_rank_prior_keeps_its_digits_in_float32():
    """One direction of variance 1e6 among 1e-4, under data of precision 1e2 to 1e4: nothing may cancel."""
    rng = np.random.default_rng(0)
    column, h = rng.normal(size=200), 10.0 ** rng.uniform(2, 4, 200)
    column *= 1e3 / np.linalg.norm(column)
    covariance = np.diag(np.full(200, 1e-4)) + np.outer(column, column)
    truth = np.diag(np.linalg.inv(np.linalg.inv(covariance) + np.diag(h)))
    prior = gaussians.low_rank({"w": jnp.zeros(200)}, 1e-4, {"w": jnp.asarray(column, jnp.float32)[None]})
    found = prior.add_diagonal_precision({"w": jnp.asarray(h, jnp.float32)}).variance["w"]
    np.testing.assert_allclose(found, truth, rtol=1e-4)


def test_a_large_kronecker_layer_is_refused():
    g = gaussians.kronecker({"w": jnp.zeros((65, 65))}, {"w": jnp.eye(65)}, {"w": jnp.eye(65)})
    for asked in (g.add_diagonal_precision, g.diagonal_log_det_ratio):
        with pytest.raises(TypeError, match="diagonal precision on top of a Kronecker Gaussian has no closed form"):
            asked({"w": jnp.ones((65, 65))})


@pytest.mark.x64
def test_under_kronecker_and_low_rank_on_kronecker():
    rng = np.random.default_rng(3)
    tree = {"b": jnp.zeros(2), "w": jnp.zeros((3, 2))}
    r, c, s, t = (x @ x.T + 0.1 * np.eye(len(x)) for x in (rng.normal(size=(n, n)) for n in (3, 2, 1, 2)))
    kronecker = gaussians.kronecker(tree, {"b": s, "w": r}, {"b": t, "w": c})
    columns = {"b": jnp.asarray(rng.normal(size=(2, 2))), "w": jnp.asarray(rng.normal(size=(2, 3, 2)))}
    h = {"b": jnp.asarray(rng.uniform(0, 3, 2)), "w": jnp.asarray(rng.uniform(0, 3, (3, 2)))}
    flat_h = np.concatenate([h["b"], h["w"].ravel()])
    before = np.zeros((8, 8))
    before[:2, :2], before[2:, 2:] = s * t, np.kron(r, c)
    rows = np.concatenate([columns["b"], columns["w"].reshape(2, -1)], axis=1)
    measured = np.linalg.inv(np.linalg.inv(before) + rows.T @ rows)

    @jax.jit
    def program(kronecker, columns, h):
        priors = kronecker, kronecker.add_precision(columns)
        units = {"b": jnp.eye(8)[:, :2], "w": jnp.eye(8)[:, 2:].reshape(8, 3, 2)}
        return [
            (jax.vmap(g.add_diagonal_precision(h).covariance_mv)(units), g.diagonal_log_det_ratio(h)) for g in priors
        ]

    for (found, ratio), covariance in zip(program(kronecker, columns, h), (before, measured), strict=True):
        truth = np.linalg.inv(np.linalg.inv(covariance) + np.diag(flat_h))
        found = np.concatenate([found["b"], found["w"].reshape(8, -1)], axis=1)
        np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ratio, np.linalg.slogdet(np.eye(8) + covariance @ np.diag(flat_h))[1], rtol=1e-9)
