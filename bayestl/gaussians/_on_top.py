"""Gaussians after linear measurements have been added."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._types import Params
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._canonical import canonical, orthonormal
from bayestl.gaussians._low_rank import LowRank
from bayestl.gaussians._matrices import Columns
from bayestl.gaussians._roots import root_of
from bayestl.gaussians._white import above_minus_one


def on_top(gaussian: Gaussian, columns: Params) -> LowRank:
    """See :meth:`Gaussian.add_precision`: the measurements join the existing columns, on top of the same base."""
    base, existing = gaussian.without_columns()
    scaled, size = jax.vmap(root_of(base).unwhiten_transposed)(columns), _tree.size(base.mean)
    return LowRank(base, *(_measured(scaled, size) if existing is None else _measured_again(existing, scaled, size)))


def _measured(scaled: Params, size: int) -> tuple[Params, jax.Array]:
    """Q and lam of ``(I + C C^T)^-1``, where C are the columns in the coordinates of the covariance's square root."""
    rank = jax.tree.leaves(scaled)[0].shape[0]
    basis, gained = canonical(scaled, jnp.eye(rank))
    # Eigenvalues ascend; columns beyond the number of parameters, which are zero, therefore come first.
    rest = slice(max(rank - size, 0), None)
    basis, gained = jax.tree.map(lambda q: q[rest], basis), jnp.maximum(gained[rest], 0)
    return basis, above_minus_one(-gained / (1 + gained))


def _measured_again(existing: Columns, scaled: Params, size: int) -> tuple[Params, jax.Array]:
    """Likewise of ``((I + Q diag(lam) Q^T)^-1 + C C^T)^-1``.

    With Z an orthonormal basis of both sets of columns, everything else is a small matrix.
    """
    both = jax.tree.map(lambda q, c: jnp.concatenate([q, c]), existing.basis, scaled)
    basis, coordinates = orthonormal(both)
    rest = slice(max(len(coordinates) - size, 0), None)
    basis, coordinates = jax.tree.map(lambda z: z[rest], basis), coordinates[rest]
    old, new = coordinates[:, : len(existing.eigenvalues)], coordinates[:, len(existing.eigenvalues) :]
    eye = jnp.eye(len(coordinates), dtype=coordinates.dtype)
    root = eye + _matmul(old * (jnp.sqrt(1 + existing.eigenvalues) - 1), old.T)
    left, gained, _ = jnp.linalg.svd(_matmul(root.T, new), full_matrices=False)
    root = _matmul(root, eye + _matmul(left * (jax.lax.rsqrt(1 + gained**2) - 1), left.T))
    # Singular values of the root, not eigenvalues of the covariance, which would lose the low end of wide spectra.
    left, values, _ = jnp.linalg.svd(root)
    return _tree.columns_mv(basis, left.T), above_minus_one(values**2 - 1)


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)
