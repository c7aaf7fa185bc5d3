"""The square root of a covariance that may be singular."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision


@jax.custom_jvp
def symmetric_root(matrix: jax.Array) -> jax.Array:
    """The symmetric R with ``R R = A`` for positive semi-definite A (..., n, n).

    Cholesky fails on the singular ones, which come of more outputs than parameters. Eigenvalues that rounding took
    below zero count as zero.
    """
    values, vectors = _eigh(matrix)
    return _composed(vectors, jnp.sqrt(values)[..., None, :] * jnp.eye(matrix.shape[-1], dtype=matrix.dtype))


def _eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return jnp.maximum(values, 0), vectors


def _composed(vectors: jax.Array, inner: jax.Array) -> jax.Array:
    transposed = jnp.swapaxes(vectors, -1, -2)
    outer = jnp.matmul(vectors, inner, precision=Precision.HIGHEST)
    return jnp.matmul(outer, transposed, precision=Precision.HIGHEST)


@symmetric_root.defjvp
def _symmetric_root_jvp(primals, tangents):
    # dR solves dR R + R dR = dA. The derivative of the eigenvectors, infinite where eigenvalues meet, is not needed.
    (matrix,), (tangent,) = primals, tangents
    values, vectors = _eigh(matrix)
    roots = jnp.sqrt(values)
    total = roots[..., :, None] + roots[..., None, :]
    rotated = _composed(jnp.swapaxes(vectors, -1, -2), tangent)
    inner = jnp.where(total > 0, rotated / jnp.where(total > 0, total, 1), 0)
    diagonal = roots[..., None, :] * jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    return _composed(vectors, diagonal), _composed(vectors, inner)
