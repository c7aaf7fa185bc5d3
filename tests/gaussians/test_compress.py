"""Fewer columns, against dense algebra."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import gaussians

RNG = np.random.default_rng(0)
MEAN = {"a": jnp.asarray(RNG.normal(size=3)), "b": jnp.asarray(RNG.normal(size=(2, 2)))}
FACTOR = {"a": jnp.asarray(RNG.normal(size=(3, 3))), "b": jnp.asarray(RNG.normal(size=(3, 2, 2)))}
VARIANCES = {"a": jnp.array([0.5, 1.0, 2.0]), "b": jnp.array([[0.3], [3.0]])}

ROUNDING = 1e-5  # of float32, through some tens of operations


def _flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(tree["a"]).ravel(), np.asarray(tree["b"]).ravel()])


def test_columns_that_widen_leave_their_variances():
    full = gaussians.low_rank(MEAN, VARIANCES, FACTOR)
    smaller = gaussians.compress(full, 1)
    assert smaller.rank == 1
    np.testing.assert_allclose(_flat(smaller.variance), _flat(full.variance), rtol=ROUNDING)
    # The dropped part is diagonal: off the diagonal only the largest column is left.
    eigenvalue, column = full.eigenvalues[-1], np.sqrt(_flat({"a": VARIANCES["a"], "b": jnp.repeat(VARIANCES["b"], 2)}))
    column = column * np.concatenate([np.asarray(full.basis["a"][-1]), np.asarray(full.basis["b"][-1]).ravel()])
    expected = float(eigenvalue) * np.outer(column, column)
    unit = {"a": jnp.eye(3)[0], "b": jnp.zeros((2, 2))}
    np.testing.assert_allclose(_flat(smaller.covariance_mv(unit))[1:], expected[0, 1:], rtol=1e-4, atol=1e-5)


def test_columns_that_narrow_leave_their_precision():
    full = gaussians.diagonal(MEAN, VARIANCES).add_precision(FACTOR)
    smaller = gaussians.compress(full, 2)
    assert smaller.rank == 2
    precision = [np.broadcast_to(g.precision_diagonal()[k], MEAN[k].shape) for g in (full, smaller) for k in ("a", "b")]
    np.testing.assert_allclose(precision[0], precision[2], rtol=ROUNDING)
    np.testing.assert_allclose(precision[1], precision[3], rtol=ROUNDING)


@pytest.mark.x64
def test_the_columns_kept_are_those_that_matter():
    """Of a widening by 9 and a narrowing to 1/100, in nats of divergence, the second matters more."""
    wide = gaussians.low_rank({"w": jnp.zeros(3)}, 1.0, {"w": jnp.array([[3.0, 0.0, 0.0]])})
    both = wide.add_precision({"w": jnp.array([[0.0, 1e4, 0.0]])})
    kept = gaussians.compress(both, 1)
    np.testing.assert_allclose(kept.variance["w"], both.variance["w"], rtol=1e-6)
    assert float(kept.eigenvalues[0]) < 0


def test_nothing_to_do_blocks_and_bad_input():
    diagonal, full = gaussians.isotropic(MEAN, 1.0), gaussians.low_rank(MEAN, VARIANCES, FACTOR)
    assert gaussians.compress(diagonal, 1) is diagonal
    assert gaussians.compress(full, 3) is full
    blocks = gaussians.compress(gaussians.by_path({"a": full, "b": full}), 1)
    assert [block.rank for block in blocks.blocks()] == [1, 1]
    with pytest.raises(ValueError, match="rank is 0"):
        gaussians.compress(full, 0)
