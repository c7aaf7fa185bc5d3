"""Gaussians with more precision, against dense matrices in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from bayestl import gaussians

SIZE = 6


def _tree(flat):
    return {"a": flat[:2], "b": {"c": flat[2:].reshape(2, 2)}}


def _columns(rng, num, size=SIZE):
    return jax.vmap(_tree)(jnp.asarray(rng.normal(size=(num, size))))


def _dense(rng):
    root = rng.normal(size=(SIZE, SIZE))
    return gaussians.dense(_tree(jnp.asarray(rng.normal(size=SIZE))), root @ root.T + 0.1 * np.eye(SIZE))


def _diagonal(rng):
    return gaussians.diagonal(_tree(jnp.ones(SIZE)), _tree(jnp.asarray(np.exp(rng.normal(size=SIZE)))))


def _low_rank(rng):
    return gaussians.low_rank(_tree(jnp.zeros(SIZE)), 0.5, _columns(rng, 2))


def _kronecker(rng):
    roots = [rng.normal(size=(n, n)) for n in (1, 2, 2, 2)]
    a, b, c, d = (r @ r.T + 0.1 * np.eye(len(r)) for r in roots)
    return gaussians.kronecker(_tree(jnp.zeros(SIZE)), {"a": a, "b": {"c": c}}, {"a": b, "b": {"c": d}})


CASES = {
    "diagonal": (_diagonal, 2, gaussians.LowRank),
    "one number per leaf": (lambda rng: gaussians.isotropic(_tree(jnp.zeros(SIZE)), 2.0), 2, gaussians.LowRank),
    "more columns than parameters": (_diagonal, 9, gaussians.LowRank),
    "low rank": (_low_rank, 3, gaussians.LowRank),
    "low rank, more columns": (_low_rank, 9, gaussians.LowRank),
    "dense": (_dense, 3, gaussians.Dense),
    "diagonal and low rank": (
        lambda rng: gaussians.by_path({"a": _diagonal(rng), "b/**": _low_rank(rng)}), 2, gaussians.LowRank
    ),
    "blocks within blocks, diagonal": (
        lambda rng: gaussians.Blocks((gaussians.by_path({"a": _diagonal(rng), "**": _diagonal(rng)}),)), 2,
        gaussians.LowRank,
    ),
    "small dense block": (
        lambda rng: gaussians.by_path({"a": _dense(rng), "b/**": _diagonal(rng)}), 1, gaussians.LowRank
    ),
    "kronecker": (_kronecker, 3, gaussians.LowRank),
    "kronecker, more columns": (_kronecker, 9, gaussians.LowRank),
    "kronecker and low rank": (
        lambda rng: gaussians.by_path({"a": _low_rank(rng), "b/**": _kronecker(rng)}), 2, gaussians.LowRank
    ),
    "kronecker and dense": (
        lambda rng: gaussians.by_path({"a": _kronecker(rng), "b/**": _dense(rng)}), 2, gaussians.LowRank
    ),
    "low rank update": (
        lambda rng: _kronecker(rng).add_precision(_columns(rng, 2)), 3, gaussians.LowRank
    ),
    "low rank update and low rank": (
        lambda rng: gaussians.by_path(
            {"a": _low_rank(rng), "**": _kronecker(rng).add_precision(_columns(rng, 2))}
        ), 5, gaussians.LowRank
    ),
    "large dense block": (
        lambda rng: gaussians.by_path({"a": _low_rank(rng), "b/**": _dense(rng)}), 3, gaussians.LowRank
    ),
}  # fmt: skip


def _covariance(gaussian):
    unflat = ravel_pytree(gaussian.mean)[1]
    return jax.jit(jax.vmap(lambda e: ravel_pytree(gaussian.covariance_mv(unflat(e)))[0]))(jnp.eye(SIZE))


@pytest.mark.x64
@pytest.mark.parametrize("name", CASES)
def test_precisions_add(name):
    make, num, structure = CASES[name]
    rng = np.random.default_rng(0)
    gaussian, columns = make(rng), _columns(rng, num)
    updated = jax.jit(lambda g, columns: g.add_precision(columns))(gaussian, columns)
    assert isinstance(updated, structure)
    rows = np.asarray(jax.vmap(lambda c: ravel_pytree(c)[0])(columns))
    expected = np.linalg.inv(np.linalg.inv(_covariance(gaussian)) + rows.T @ rows)
    np.testing.assert_allclose(_covariance(updated), expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(updated.log_det_covariance(), np.linalg.slogdet(expected)[1], rtol=1e-9)
    ratio = np.linalg.slogdet(_covariance(gaussian))[1] - np.linalg.slogdet(expected)[1]
    np.testing.assert_allclose(gaussian.log_det_ratio(columns), ratio, rtol=1e-9)
    np.testing.assert_allclose(ravel_pytree(updated.mean)[0], ravel_pytree(gaussian.mean)[0])


def test_float32_keeps_both_ends_of_a_wide_spectrum():
    # Low-rank priors of SWAG have factors 1e3 and more above a small diagonal: one of its directions is measured to
    # 1e-2 of the diagonal, another not at all. Covariances as such would resolve 1e6 * 6e-8 = 0.06; their square roots
    # resolve 1e3 * 6e-8 of the 0.1 that is wanted, 0.1 % of the variance, and a few times that adds up.
    size, rng = 50, np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(size, 3)))[0].T
    factor = jnp.asarray(basis[:2] * 1e3, jnp.float32)
    gaussian = gaussians.low_rank(jnp.zeros(size), 1.0, factor)
    updated = gaussian.add_precision(jnp.asarray(basis[1:] * 10, jnp.float32))
    inside = [float(q @ updated.covariance_mv(jnp.asarray(q, jnp.float32))) for q in basis]
    np.testing.assert_allclose(inside, [1e6 + 1, 1 / (100 + 1 / (1e6 + 1)), 1 / 101], rtol=1e-2)


def test_a_precision_beyond_all_bounds_stays_positive():
    updated = gaussians.isotropic(jnp.zeros(3), 1.0).add_precision(jnp.array([[1e6, 0, 0]]))
    assert np.all(np.isfinite(updated.precision_mv(jnp.ones(3))))
    assert np.all(updated.sample(jax.random.key(0), 2)[:, 0] != 0)
