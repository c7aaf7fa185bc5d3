"""The canonical form of a low-rank update of the identity.

``I + B K B^T = I + Q diag(lam) Q^T`` with orthonormal columns Q, for columns B (leaves (k, *shape)) and a symmetric
k x k matrix K. Only k x k matrices are decomposed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._types import Params


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)


@jax.custom_jvp
def _eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@_eigh.defjvp
def _eigh_jvp(primals, tangents):
    # Eigenvectors of equal eigenvalues are arbitrary, and jnp's rule divides by the zero gap. Their rotation into each
    # other is taken as zero: exact for everything built from them as long as the tangent does not couple them (a change
    # of scale, or of columns that the Gram matrix leaves out), and finite where it does.
    (matrix,), (d_matrix,) = primals, tangents
    values, vectors = _eigh(matrix)
    inner = _matmul(vectors.T, _matmul(0.5 * (d_matrix + d_matrix.T), vectors))
    gaps = values[None, :] - values[:, None]
    # Equal up to their own rounding, not that of the largest: eigenvalues usually differ by orders of magnitude.
    sizes = jnp.abs(values)
    eps = jnp.finfo(values.dtype).eps
    safe = jnp.abs(gaps) > 10 * eps * (jnp.maximum(sizes[:, None], sizes[None, :]) + eps * jnp.max(sizes))
    rotation = jnp.where(safe, inner / jnp.where(safe, gaps, 1.0), 0.0)
    return (values, vectors), (jnp.diagonal(inner), _matmul(vectors, rotation))


def _combine(columns: Params, weights: jax.Array) -> Params:
    """Columns times a (k, l) matrix: leaves (l, *shape)."""
    return _tree.columns_mv(columns, weights.T)


def _orthonormalise(columns: Params) -> tuple[Params, jax.Array]:
    """``B = Q R`` with Q^T Q = I (a zero column where B is singular) through the eigenvectors of the Gram matrix."""
    gram = _tree.columns_gram(columns, columns)
    # Columns are first brought to length 1, so that only collinear columns, not short ones, count as singular.
    lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), jnp.finfo(gram.dtype).tiny))
    values, vectors = _eigh(gram / lengths[:, None] / lengths[None, :])
    keep = values > 4 * values.size * jnp.finfo(values.dtype).eps * values[-1]
    roots = jnp.sqrt(jnp.where(keep, values, 1.0))
    basis = _combine(columns, jnp.where(keep, vectors / roots, 0.0) / lengths[:, None])
    return basis, jnp.where(keep[:, None], (vectors * roots).T, 0.0) * lengths[None, :]


def orthonormal(columns: Params) -> tuple[Params, jax.Array]:
    """``B = Q R`` with Q^T Q = I for B = ``columns``; where B is singular, zero columns of Q, which come first."""
    basis, first = _orthonormalise(columns)
    # The Gram matrix squares the condition number; a second pass over nearly orthonormal columns removes what it lost.
    basis, second = _orthonormalise(basis)
    return basis, _matmul(second, first)


def canonical(columns: Params, middle: jax.Array) -> tuple[Params, jax.Array]:
    """The orthonormal columns Q and the eigenvalues lam of ``B K B^T``, for B = ``columns`` and K = ``middle``."""
    basis, root = orthonormal(columns)
    inner = _matmul(root, _matmul(middle.astype(root.dtype), root.T))
    eigenvalues, rotation = _eigh(0.5 * (inner + inner.T))
    return _combine(basis, rotation), eigenvalues
