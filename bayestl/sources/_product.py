"""Several sources that are all right: the product of their densities."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.lax import Precision

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Params
from bayestl.gaussians import Blocks, Columns, Diagonal, Gaussian, LowRank, dense, low_rank
from bayestl.sources._mixture import check_sources

_MOST_DENSE = 3000


def product(sources: Sequence[Gaussian], weights: Numbers | None = None) -> Gaussian:
    """A prior that agrees with all of several sources: the normalised product of their densities, each to a power.

    ``precision = sum_m w_m Lambda_m``, ``mean = precision^-1 sum_m w_m Lambda_m mu_m``. Independent sources are each
    counted once (w = 1, the default). Sources that share what they were trained on know less together than apart:
    weights of sum 1 count them as one.

    Args:
        sources: M >= 1 Gaussians over one tree: diagonal or low rank on top of a diagonal, these by path (in the same
            blocks), or any structure of at most 3000 parameters in all.
        weights: w, (M,), above 0; by default 1 each.

    Returns:
        Diagonal, where all are; low rank on a diagonal, of the ranks together, where some have columns; dense
        otherwise.

    Raises:
        TypeError: a source that is no Gaussian.
        ValueError: none at all, structures that differ, weights that are not (M,) positive numbers, structures whose
            product has no closed form of theirs.

    Reference:
        Genest and Zidek 1986, "Combining Probability Distributions", section 3 (logarithmic pooling).

    Example:
        >>> a = btl.gaussians.isotropic({"w": jnp.array([0.0])}, scale=1.0)
        >>> b = btl.gaussians.isotropic({"w": jnp.array([3.0])}, scale=2.0**0.5)
        >>> both = btl.sources.product([a, b])
        >>> print(f"{both.mean['w'][0]:.3f} {both.variance['w'][0]:.3f}")
        1.000 0.667
    """
    check_arguments(product, locals())
    sources = tuple(sources)
    check_sources("product", sources)
    if weights is not None:
        weights = jnp.asarray(weights, jnp.result_type(float))
        if weights.shape != (len(sources),):
            raise ValueError(f"weights has shape {weights.shape}; give one number per source, ({len(sources)},)")
        _tree.check_positive("weights", weights, "leave out a source of weight 0")
        sources = tuple(source.rescale(1 / w) for source, w in zip(sources, weights, strict=True))
    parts = [_product_of_block(block) for block in _common_blocks(sources)]
    return parts[0] if len(parts) == 1 else Blocks(tuple(parts))


def _common_blocks(sources: tuple[Gaussian, ...]) -> list[tuple[Gaussian, ...]]:
    """The sources block by block, where those that have blocks have the same ones."""
    own = [[frozenset(_tree.paths(block.mean)) for block in source.blocks()] for source in sources]
    correlated = [
        number
        for number, source in enumerate(sources)
        if source.independent_variances() is None and len(own[number]) > 1
    ]
    if not correlated:
        return [sources]
    wanted = own[correlated[0]]
    for number, source in enumerate(sources):
        if source.independent_variances() is None and set(own[number]) != set(wanted):
            return [sources]
    return [tuple(_restricted(source, paths) for source in sources) for paths in wanted]


def _restricted(source: Gaussian, paths: frozenset[str]) -> Gaussian:
    part = source.restrict(_tree.select_where(source.mean, paths.__contains__))
    blocks = part.blocks()
    return blocks[0] if len(blocks) == 1 else part


def _product_of_block(sources: tuple[Gaussian, ...]) -> Gaussian:
    apart = [_apart(source) for source in sources]
    if all(each is not None for each in apart):
        return _with_columns(sources, [each for each in apart if each is not None])
    return _dense(sources)


def _apart(source: Gaussian) -> tuple[Params, Columns | None] | None:
    """The variances of a diagonal base, in full shapes, and the columns on top of it; None for another structure."""
    base, columns = source.without_columns()
    variances = base.independent_variances()
    if variances is None:
        return None
    return jax.tree.map(lambda v, m: jnp.broadcast_to(v, m.shape), variances, source.mean), columns


def _with_columns(sources: tuple[Gaussian, ...], apart: list[tuple[Params, Columns | None]]) -> Gaussian:
    """In units of the diagonal's product a, the precision is ``I + P (M - I) P^T``, P a basis of all columns.

    M is a sum over sources of sums of squares (what of ``a^1/2 a_m^-1/2 P`` lies outside of the source's columns, and
    what lies inside, shrunk), so that nothing is lost where a source is sharp.
    """
    first = sources[0]
    diagonal = jax.tree.map(lambda *vs: 1 / sum(1 / v for v in vs), *(variances for variances, _ in apart))
    ratios = [jax.tree.map(lambda a, v: jnp.sqrt(a / v), diagonal, variances) for variances, _ in apart]
    columns = [
        jax.vmap(lambda q, r=ratio: jax.tree.map(jnp.multiply, q, r))(each.basis)
        for ratio, (_, each) in zip(ratios, apart, strict=True)
        if each is not None
    ]
    result: Gaussian = Diagonal(first.mean, diagonal)
    if columns:
        together = jax.tree.map(lambda *cs: jnp.concatenate(cs), *columns)
        rank = jax.tree.leaves(together)[0].shape[0]
        if rank > _tree.size(first.mean):
            return _dense(sources)
        # A unit Gaussian with these columns has an orthonormal basis of them, and whichever eigenvalues.
        basis = low_rank(_tree.zeros_like(first.mean), 1.0, together).basis
        middle = sum(_inside(basis, ratio, each) for ratio, (_, each) in zip(ratios, apart, strict=True))
        filled = _tree.columns_gram(basis, basis)
        # Where the columns are collinear the basis has zero ones; there the precision is 1.
        middle = middle + jnp.diag(jnp.where(jnp.diagonal(filled) > 0.5, 0.0, 1.0))
        values, rotation = _eigh(0.5 * (middle + middle.T))
        least = sum(_least(ratio, each) for ratio, (_, each) in zip(ratios, apart, strict=True))
        values = jnp.maximum(values, least)  # which rounding alone could fall below
        result = LowRank(Diagonal(first.mean, diagonal), _tree.columns_mv(basis, rotation.T), 1 / values - 1)
    pulls = [source.precision_mv(_tree.sub(source.mean, first.mean)) for source in sources[1:]]
    if not pulls:
        return result
    pull = jax.tree.map(lambda *xs: sum(xs), *pulls)
    return result.around(_tree.add(first.mean, result.covariance_mv(pull)))


def _least(ratio: Params, columns: Columns | None) -> jax.Array:
    """A lower bound of what one source's precision says along any direction of length 1."""
    smallest = jnp.min(jnp.stack([jnp.min(r) for r in jax.tree.leaves(ratio)])) ** 2
    return smallest if columns is None else smallest / (1 + jnp.maximum(jnp.max(columns.eigenvalues), 0))


def _eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and eigenvectors; of known values in float64, since sharp sources differ by more than 1e7."""
    if not _tree.is_concrete(matrix):
        return jnp.linalg.eigh(matrix)
    values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    return jnp.asarray(values, matrix.dtype), jnp.asarray(vectors, matrix.dtype)


def _inside(basis: Params, ratio: Params, columns: Columns | None) -> jax.Array:
    """What one source's precision says along the basis, (K, K)."""
    scaled = jax.vmap(lambda p: jax.tree.map(jnp.multiply, p, ratio))(basis)
    if columns is None:
        return _tree.columns_gram(scaled, scaled)
    along = _tree.columns_gram(columns.basis, scaled)
    outside = _tree.sub(scaled, _tree.columns_mv(columns.basis, along.T))
    shrunk = along / jnp.sqrt(1 + columns.eigenvalues)[:, None]
    return _tree.columns_gram(outside, outside) + jnp.matmul(shrunk.T, shrunk, precision=Precision.HIGHEST)


def _dense(sources: tuple[Gaussian, ...]) -> Gaussian:
    mean, unravel = ravel_pytree(sources[0].mean)  # a dense covariance is over one vector
    if mean.size > _MOST_DENSE:
        kinds = ", ".join(type(source).__name__ for source in sources)
        raise ValueError(
            f"the product of {kinds} over {mean.size:,} parameters has no closed form of these structures; give "
            "Gaussians that are diagonal or of low rank on top of one, in the same blocks"
        )
    identity = jnp.eye(mean.size, dtype=mean.dtype)
    precisions = [jax.vmap(lambda v, s=s: ravel_pytree(s.precision_mv(unravel(v)))[0])(identity) for s in sources]
    total = jnp.sum(jnp.stack(precisions), axis=0)
    pull = sum(
        jnp.matmul(p, ravel_pytree(s.mean)[0] - mean, precision=Precision.HIGHEST)
        for p, s in zip(precisions, sources, strict=True)
    )
    covariance = jnp.linalg.inv(0.5 * (total + total.T))
    shift = jnp.matmul(covariance, pull, precision=Precision.HIGHEST)
    return dense(unravel(mean + shift), 0.5 * (covariance + covariance.T))
