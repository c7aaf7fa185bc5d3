"""Gaussians after linear measurements have been added."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._types import Params
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._canonical import orthonormal, squared, unflatten
from bayestl.gaussians._low_rank import LowRank
from bayestl.gaussians._matrices import Columns
from bayestl.gaussians._roots import root_of
from bayestl.gaussians._white import above_minus_one


def on_top(gaussian: Gaussian, columns: Params) -> LowRank:
    """See :meth:`Gaussian.add_precision`: the measurements join the existing columns, on top of the same base."""
    base, existing = gaussian.without_columns()
    scaled, size = jax.vmap(root_of(base).unwhiten_transposed)(columns), _tree.size(base.mean)
    rank = jax.tree.leaves(scaled)[0].shape[0] + (0 if existing is None else len(existing.eigenvalues))
    measured = _measured(scaled) if existing is None else _measured_again(existing, scaled, rank >= size)
    return _whole(base, *measured) if rank >= size else _part(base, *measured)


def log_det_ratio(gaussian: Gaussian, columns: Params) -> jax.Array:
    """See :meth:`Gaussian.log_det_ratio`."""
    return _log_det(jax.vmap(root_of(gaussian).unwhiten_transposed)(columns))


def _part(base: Gaussian, basis: Params, ratios: jax.Array) -> LowRank:
    """The Gaussian with variances ``ratios`` along the columns, those of the base being 1 in its coordinates."""
    return LowRank(base, basis, above_minus_one(ratios - 1), ratios)


def _whole(base: Gaussian, basis: Params, ratios: jax.Array) -> LowRank:
    """The same where the columns are a complete basis.

    Nothing of the base is left: its scale is arbitrary, and is that of the smallest variance. Then the covariance is a
    sum of positive terms, where the difference of those of the prior would say nothing of what is 1e-7 of it.
    """
    smallest = jax.lax.stop_gradient(jnp.min(ratios))
    return LowRank(base.rescale(smallest), basis, ratios / smallest - 1)


def _measured(scaled: Params) -> tuple[Params, jax.Array]:
    """Q and the variances along it of ``(I + C C^T)^-1``, C the columns as the square root of the covariance sees
    them."""
    basis, gained = squared(scaled)
    return basis, 1 / (1 + gained)


def _measured_again(existing: Columns, scaled: Params, whole: bool) -> tuple[Params, jax.Array]:
    """Likewise of ``((I + Q diag(lam) Q^T)^-1 + C C^T)^-1``.

    With Z an orthonormal basis of both sets of columns, or of all parameters: all else is small.
    """
    num = len(existing.eigenvalues)
    if whole:
        old, new = (_rows(x).T for x in (existing.basis, scaled))
    else:
        basis, coordinates = orthonormal(jax.tree.map(lambda q, c: jnp.concatenate([q, c]), existing.basis, scaled))
        old, new = coordinates[:, :num], coordinates[:, num:]
    eye = jnp.eye(len(old), dtype=old.dtype)
    root = eye + _matmul(old * (jnp.sqrt(existing.ratios) - 1), old.T)
    left, gained, _ = jnp.linalg.svd(_matmul(root.T, new), full_matrices=False)
    root = _matmul(root, eye + _matmul(left * (jax.lax.rsqrt(1 + gained**2) - 1), left.T))
    # Singular values of the root, not eigenvalues of the covariance, which would lose the low end of wide spectra.
    left, values, _ = jnp.linalg.svd(root)
    return unflatten(left.T, scaled) if whole else _tree.columns_mv(basis, left.T), values**2


@jax.custom_jvp
def _log_det(columns: Params) -> jax.Array:
    """``log det (I + C^T C)`` from singular values: a Gram matrix in float32 loses what is 1e-7 of its largest."""
    return jnp.sum(jnp.log1p(squared(columns)[1]))


@_log_det.defjvp
def _log_det_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # 2 <(I + C C^T)^-1 C, dC>, within the span of C, where no difference of large numbers is taken.
    (columns,), (d_columns,) = primals, tangents
    basis, gained = squared(columns)
    along, moved = (_tree.columns_gram(basis, c) for c in (columns, d_columns))
    return jnp.sum(jnp.log1p(gained)), 2 * jnp.sum(along / (1 + gained[:, None]) * moved)


def _rows(columns: Params) -> jax.Array:
    """Columns as the rows of a matrix (k, D)."""
    return jnp.concatenate([x.reshape(len(x), -1) for x in jax.tree.leaves(columns)], axis=1)


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)
