"""Fewer columns for Gaussians of low rank."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._blocks import Blocks
from bayestl.gaussians._canonical import canonical
from bayestl.gaussians._diagonal import Diagonal
from bayestl.gaussians._low_rank import LowRank
from bayestl.gaussians._matrices import Columns


def compress(gaussian: Gaussian, rank: int) -> Gaussian:
    """The Gaussian with at most ``rank`` columns in its low-rank part; the others leave their diagonal behind.

    For posteriors that gather columns from task to task. In ``Sigma = S (I + Q diag(lam) Q^T) S^T`` the columns kept
    are those with the largest ``lam - log(1 + lam)``, which is twice what leaving one out costs in divergence. On a
    diagonal base, what a column dropped with lam > 0 adds to each variance stays (so that marginal variances are what
    they were), and what one with lam < 0 adds to each diagonal entry of the precision. On any other base columns
    dropped leave nothing.

    Args:
        gaussian: of any structure; one without columns, or with no more than ``rank``, comes back as it is. Of several
            blocks each keeps ``rank``.
        rank: columns to keep, at least 1.

    Raises:
        ValueError: rank below 1.

    Example:
        >>> factor = {"w": jnp.array([[3.0, 0.0, 0.0], [0.0, 0.1, 0.1]])}
        >>> g = btl.gaussians.low_rank({"w": jnp.zeros(3)}, 1.0, factor)
        >>> smaller = btl.gaussians.compress(g, rank=1)
        >>> print(smaller.rank, smaller.variance["w"].round(2))
        1 [10.    1.01  1.01]
    """
    check_arguments(compress, locals())
    if rank < 1:
        raise ValueError(f"rank is {rank}; keep at least 1 column")
    blocks = gaussian.blocks()
    if len(blocks) > 1:
        return Blocks(tuple(compress(block, rank) for block in blocks))
    base, columns = gaussian.without_columns()
    if columns is None or columns.eigenvalues.shape[-1] <= rank:
        return gaussian
    cost = columns.eigenvalues - jnp.log1p(columns.eigenvalues)
    order = jnp.argsort(-cost)
    kept, dropped = (
        Columns(jax.tree.map(lambda q, at=at: q[at], columns.basis), columns.eigenvalues[at])
        for at in (order[:rank], order[rank:])
    )
    variances = base.independent_variances()
    if variances is None:
        return LowRank(base, *kept)
    more = jax.tree.map(lambda x: 1 + x, _diagonal(dropped, jnp.maximum(dropped.eigenvalues, 0)))
    rooted = jax.tree.map(lambda q, x: q * jax.lax.rsqrt(x), kept.basis, more)
    diagonal = jax.tree.map(jnp.multiply, variances, more)
    widened = LowRank(Diagonal(gaussian.mean, diagonal), *canonical(rooted, jnp.diag(kept.eigenvalues)))
    negative = jnp.minimum(dropped.eigenvalues, 0)
    precision = jax.tree.map(lambda p, v: p / v, _diagonal(dropped, -negative / (1 + negative)), variances)
    return widened.add_diagonal_precision(precision)


def _diagonal(columns: Columns, weights: jax.Array) -> Params:
    """The diagonal of ``Q diag(weights) Q^T``."""
    return jax.tree.map(lambda q: jnp.tensordot(weights, q**2, axes=1, precision=Precision.HIGHEST), columns.basis)
