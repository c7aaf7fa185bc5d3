"""Independent blocks as one Gaussian of one structure."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bayestl import _tree
from bayestl._types import Params
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._by_path import Blocks
from bayestl.gaussians._dense import Dense, triangular
from bayestl.gaussians._diagonal import Diagonal
from bayestl.gaussians._kronecker import Kronecker
from bayestl.gaussians._low_rank import LowRank
from bayestl.gaussians._low_rank_update import LowRankUpdate


def as_one_block(blocks: Blocks, num_columns: int) -> Gaussian:
    """Independent blocks as one Gaussian of one structure, the smallest that will hold ``num_columns`` more columns.

    Blocks that no such structure holds stay as they are, below the low-rank parts of all.
    """
    parts = _flattened(blocks)
    for part in parts:
        if not isinstance(part, Diagonal | LowRank | Dense | Kronecker | LowRankUpdate):
            raise TypeError(no_closed_form(part))
    if any(isinstance(part, Kronecker | LowRankUpdate) for part in parts):
        bases = Blocks(tuple(_without_columns(part) for part in parts))
        found = [part for part in parts if isinstance(part, LowRank | LowRankUpdate)]
        return LowRankUpdate(bases, *_together(parts)) if found else bases
    mean, size = blocks.mean, _tree.size(blocks.mean)
    if any(isinstance(part, Dense) for part in parts) and sum(map(_rank, parts)) + num_columns >= size:
        return _as_dense(blocks)
    whole: list[Any] = [_as_low_rank(part) if isinstance(part, Dense) else part for part in parts]
    diagonal = _tree.merge(*(part.diagonal for part in whole))
    if not sum(map(_rank, whole)):
        return Diagonal(mean, diagonal)
    return LowRank(mean, diagonal, *_together(whole))


def _flattened(gaussian: Gaussian) -> list[Gaussian]:
    return [p for b in gaussian.blocks for p in _flattened(b)] if isinstance(gaussian, Blocks) else [gaussian]


def _without_columns(gaussian: Gaussian) -> Gaussian:
    if isinstance(gaussian, LowRank):
        return Diagonal(gaussian.mean, gaussian.diagonal)
    return gaussian.base if isinstance(gaussian, LowRankUpdate) else gaussian


def _together(parts: list[Any]) -> tuple[Params, jax.Array]:
    """The columns of all low-rank parts over one tree, and their eigenvalues."""
    ranks = [part.rank if isinstance(part, LowRank | LowRankUpdate) else 0 for part in parts]
    starts = [sum(ranks[:number]) for number in range(len(ranks))]
    bases = [_placed(part, start, sum(ranks)) for part, start in zip(parts, starts, strict=True)]
    eigenvalues = [part.eigenvalues for part, rank in zip(parts, ranks, strict=True) if rank]
    return _tree.merge(*bases), jnp.concatenate(eigenvalues)


def _rank(gaussian: Gaussian) -> int:
    if isinstance(gaussian, LowRank):
        return gaussian.rank
    return _tree.size(gaussian.mean) if isinstance(gaussian, Dense) else 0


def _placed(part: Gaussian, start: int, rank: int) -> Params:
    """The columns of one block among ``rank`` of them, the others zero."""

    def leaf(q: jax.Array) -> jax.Array:
        return jnp.zeros((rank, *q.shape[1:]), q.dtype).at[start : start + len(q)].set(q)

    if isinstance(part, LowRank | LowRankUpdate):
        return jax.tree.map(leaf, part.basis)
    return jax.tree.map(lambda m: jnp.zeros((rank, *m.shape), m.dtype), part.mean)


def _as_low_rank(gaussian: Dense) -> LowRank:
    variance = jnp.sum(gaussian.cholesky**2, axis=1)
    left, values, _ = jnp.linalg.svd(gaussian.cholesky / jnp.sqrt(variance)[:, None])
    unflat = ravel_pytree(gaussian.mean)[1]
    return LowRank(gaussian.mean, unflat(variance), jax.vmap(unflat)(left.T), above_minus_one(values**2 - 1))


def _as_dense(gaussian: Gaussian) -> Dense:
    flat, unflat = ravel_pytree(gaussian.mean)
    rows = jax.vmap(lambda e: ravel_pytree(gaussian.unwhiten(unflat(e)))[0])(jnp.eye(len(flat), dtype=flat.dtype))
    return Dense(gaussian.mean, triangular(rows.T))


def above_minus_one(eigenvalues: jax.Array) -> jax.Array:
    return jnp.maximum(eigenvalues, -1 + jnp.finfo(eigenvalues.dtype).eps)


def no_closed_form(gaussian: Gaussian) -> str:
    return (
        f"low-rank precision on top of a {type(gaussian).__name__} Gaussian has no closed form that stays small; give "
        "it a diagonal, low-rank, Kronecker or dense prior, or one of these by path"
    )
