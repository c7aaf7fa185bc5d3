"""The canonical form of a low-rank update of the identity.

``I + B K B^T = I + Q diag(lam) Q^T`` with orthonormal columns Q, for columns B (leaves (k, *shape)) and a symmetric
k x k matrix K. Only k x k matrices are decomposed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._types import Params


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)


def _combine(columns: Params, weights: jax.Array) -> Params:
    """Columns times a (k, l) matrix: leaves (l, *shape)."""
    return _tree.columns_mv(columns, weights.T)


def apart(values: jax.Array) -> jax.Array:
    """Which pairs of eigenvalues differ, (k, k)."""
    # Equal up to their own rounding, not to that of the largest: eigenvalues of very different size are the rule. A
    # decomposition rounds a few dozen times, and a gap that is rounding alone must not be divided by.
    gaps, sizes, eps = values[None, :] - values[:, None], jnp.abs(values), jnp.finfo(values.dtype).eps
    return jnp.abs(gaps) > 100 * eps * (jnp.maximum(sizes[:, None], sizes[None, :]) + eps * jnp.max(sizes))


# ---------------------------------------------------------------- orthonormal columns


def orthonormal(columns: Params) -> tuple[Params, jax.Array]:
    """``B = Q R`` with Q^T Q = I for B = ``columns``; where B is singular, zero columns of Q, which come first."""
    # A Gram matrix squares the condition number. What it cannot resolve is not given up, since it may hold a part of a
    # long column: each of two passes makes the columns less collinear by up to 1 / sqrt(k eps). A third one makes them
    # orthonormal.
    basis, first = _less_collinear(columns)
    basis, second = _less_collinear(basis)
    weights, third = _orthonormalising(basis)
    root = _matmul(third, _matmul(second, first))
    # Singular for the columns at length 1 is what is left of rounding alone.
    left, values, _ = jnp.linalg.svd(root / _lengths(_tree.columns_gram(columns, columns)))
    keep = values > 8 * values.size**0.5 * jnp.finfo(values.dtype).eps * values[0]
    turn = jnp.where(keep, left, 0.0)[:, ::-1]
    return _combine(basis, _matmul(weights, turn)), _matmul(turn.T, root)


def _scaled_gram(columns: Params) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The eigenvalues and -vectors of the Gram matrix of the columns at length 1, and their lengths: so only collinear
    columns, not short ones, count as singular."""
    gram = _tree.columns_gram(columns, columns)
    lengths = _lengths(gram)
    values, vectors = jnp.linalg.eigh(gram / lengths[:, None] / lengths[None, :])
    return values, vectors, lengths


def _lengths(gram: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(jnp.diagonal(gram), jnp.finfo(gram.dtype).tiny))


def _resolution(values: jax.Array) -> jax.Array:
    return 4 * values.size * jnp.finfo(values.dtype).eps * values[-1]


def _less_collinear(columns: Params) -> tuple[Params, jax.Array]:
    """``B = X R`` with X far better conditioned than B, and no column of B given up."""
    values, vectors, lengths = _scaled_gram(columns)
    roots = jnp.sqrt(jnp.maximum(jnp.maximum(values, _resolution(values)), jnp.finfo(values.dtype).tiny))
    return _combine(columns, vectors / roots / lengths[:, None]), (vectors * roots).T * lengths[None, :]


def _orthonormalising(columns: Params) -> tuple[jax.Array, jax.Array]:
    """W and R with ``B = (B W) R``, the columns of B W orthonormal, or zero where the Gram matrix cannot resolve
    them."""
    values, vectors, lengths = _scaled_gram(columns)
    keep = values > _resolution(values)
    roots = jnp.sqrt(jnp.where(keep, values, 1.0))
    weights = jnp.where(keep, vectors / roots, 0.0) / lengths[:, None]
    return weights, jnp.where(keep[:, None], (vectors * roots).T, 0.0) * lengths[None, :]


# ---------------------------------------------------------------- canonical forms


@jax.custom_jvp
def canonical(columns: Params, middle: jax.Array) -> tuple[Params, jax.Array]:
    """The orthonormal columns Q and the eigenvalues lam of ``B K B^T``, for B = ``columns`` and K = ``middle``.

    Eigenvectors of equal eigenvalues are arbitrary, and have no derivative. What is built from them has: where a
    tangent couples them, the tangent of Q is given a part ``Q S`` with S symmetric, which no change of an orthonormal
    basis has, such that ``d(Q diag(lam) Q^T)`` is right. :mod:`bayestl.gaussians._white` reads it.
    """
    basis, root = orthonormal(columns)
    inner = _matmul(root, _matmul(middle.astype(root.dtype), root.T))
    eigenvalues, rotation = jnp.linalg.eigh(0.5 * (inner + inner.T))
    return _combine(basis, rotation), eigenvalues


@canonical.defjvp
def _canonical_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (columns, middle), (d_columns, d_middle) = primals, tangents
    basis, values = canonical(columns, middle)
    middle, d_middle = (x.astype(values.dtype) for x in (middle, d_middle))
    along = _matmul(middle, _tree.columns_gram(columns, basis))
    inner = _matmul(_tree.columns_gram(d_columns, basis).T, along)
    inside = _tree.columns_gram(columns, basis)
    inner = inner + inner.T + _matmul(inside.T, _matmul(d_middle, inside))
    return (basis, values), _moved(basis, values, d_columns, along, inner, coupled=True)


@jax.custom_jvp
def squared(columns: Params) -> tuple[Params, jax.Array]:
    """Those of ``B B^T``, eigenvalues ascending, without squares: from singular values, which float32 resolves down to
    1e-7 of the largest, so eigenvalues down to 1e-14.

    With at least as many columns as parameters Q is a complete basis: D columns, none of them zero.
    """
    leaves, treedef = jax.tree.flatten(columns)
    rank, size = len(leaves[0]), sum(x[0].size for x in leaves)
    if rank < size:
        basis, root = orthonormal(columns)
        left, roots, _ = jnp.linalg.svd(root)
        return _combine(basis, left[:, ::-1]), roots[::-1] ** 2
    rows = jnp.concatenate([x.reshape(rank, -1) for x in leaves], axis=1)
    _, roots, basis = jnp.linalg.svd(jnp.linalg.qr(rows, mode="r"))
    return unflatten(basis[::-1], columns, treedef), roots[::-1] ** 2


@squared.defjvp
def _squared_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (columns,), (d_columns,) = primals, tangents
    basis, values = squared(columns)
    along = _tree.columns_gram(columns, basis)
    inner = _matmul(_tree.columns_gram(d_columns, basis).T, along)
    return (basis, values), _moved(basis, values, d_columns, along, inner + inner.T, coupled=False)


def unflatten(rows: jax.Array, like: Params, treedef: Any = None) -> Params:
    """Rows (n, D) as a tree of leaves (n, *shape), those of ``like`` having leaves (k, *shape)."""
    leaves = jax.tree.leaves(like)
    ends = [sum(x[0].size for x in leaves[: i + 1]) for i in range(len(leaves))]
    parts = jnp.split(rows, ends[:-1], axis=1)
    shaped = [part.reshape(-1, *x.shape[1:]).astype(x.dtype) for part, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(like) if treedef is None else treedef, shaped)


def _moved(
    basis: Params, values: jax.Array, d_columns: Params, along: jax.Array, inner: jax.Array, *, coupled: bool
) -> tuple[Params, jax.Array]:
    """The tangents of Q and lam, from ``K B^T Q`` and ``Q^T d(B K B^T) Q``."""
    safe = apart(values)
    rotation = jnp.where(safe, inner / jnp.where(safe, values[None, :] - values[:, None], 1.0), 0.0)
    if coupled:
        sums = values[None, :] + values[:, None]
        together = ~safe & ~jnp.eye(len(values), dtype=bool) & (sums != 0)
        rotation = jnp.where(together, inner / jnp.where(together, sums, 1.0), rotation)
    # What leaves the span of the columns.
    outward = jnp.where(values != 0, along / jnp.where(values != 0, values, 1.0), 0.0)
    rotation = rotation - _matmul(_tree.columns_gram(basis, d_columns), outward)
    return _tree.add(_combine(d_columns, outward), _combine(basis, rotation)), jnp.diagonal(inner)
