"""Gaussians after a Kronecker-factored precision has been added for every layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._blocks import Blocks, side_by_side
from bayestl.gaussians._diagonal import from_diagonal_precision
from bayestl.gaussians._kronecker import Kronecker
from bayestl.gaussians._kronecker_columns import OfDiagonal, OfLayer, log_det, with_columns
from bayestl.gaussians._matrices import Columns, KroneckerFactors, KroneckerPrecision
from bayestl.gaussians._matrix_layout import MatrixLayout


class Eigen(NamedTuple):
    """``D A D = Q_in diag(a) Q_in^T`` with D = diag(scale), and ``G = Q_out diag(g) Q_out^T``.

    The scale is one number, one for each row of the matrix (I,), or, where that has a single row, one for each group
    (g, 1, 1): each word of a table.
    """

    scale: jax.Array
    inputs: jax.Array
    outputs: jax.Array
    input_values: jax.Array
    output_values: jax.Array

    @property
    def rows(self) -> jax.Array:
        """D in a shape that multiplies a matrix (g, I, O)."""
        return self.scale[:, None] if self.scale.ndim == 1 else self.scale

    @property
    def values(self) -> jax.Array:
        """The eigenvalues of the Kronecker product, (g, I, O)."""
        return self.input_values[:, :, None] * self.output_values[:, None, :]


def add(prior: Gaussian, precision: KroneckerPrecision) -> Gaussian:
    """See :meth:`Gaussian.add_kronecker_precision`."""
    own, precision, others = _own(prior, precision)
    after = tuple(block for block, _ in own)
    if others is None:
        return Blocks(after)
    rest, columns = _split(others, precision)
    eigens = [eigen(layer, rest) for layer in precision.layers]
    blocks: list[Gaussian] = [
        posterior_of_layer(layer, of, others.mean, 1 / (1 + of.values))
        for layer, of in zip(precision.layers, eigens, strict=True)
    ]
    if jax.tree.leaves(precision.diagonal):
        blocks.append(rest.restrict(precision.diagonal).add_diagonal_precision(precision.diagonal))
    base = Blocks(tuple(blocks))
    if columns is None:
        return Blocks((*after, *blocks))
    pieces = _pieces(precision, eigens, rest, columns)
    remaining = _tree.merge(*(place(of.remaining(q)) for of, q, place in pieces))
    whole = with_columns(base, columns, remaining, [of.root(q) for of, q, _ in pieces])
    return Blocks((*after, whole)) if own else whole


def log_det_ratio(prior: Gaussian, precision: KroneckerPrecision) -> jax.Array:
    """See :meth:`Gaussian.kronecker_log_det_ratio`."""
    own, precision, others = _own(prior, precision)
    result = jnp.sum(jnp.stack([lowered for _, lowered in own])) if own else jnp.zeros(())
    if others is None:
        return result
    rest, columns = _split(others, precision)
    eigens = [eigen(layer, rest) for layer in precision.layers]
    result += sum((jnp.sum(jnp.log1p(of.values)) for of in eigens), start=jnp.zeros(()))
    if jax.tree.leaves(precision.diagonal):
        result += rest.restrict(precision.diagonal).diagonal_log_det_ratio(precision.diagonal)
    if columns is not None:
        pieces = _pieces(precision, eigens, rest, columns)
        result += log_det([of for of, _, _ in pieces], [q for _, q, _ in pieces], columns.eigenvalues)
    return result


_Own = list[tuple[Gaussian, jax.Array]]


def _own(prior: Gaussian, precision: KroneckerPrecision) -> tuple[_Own, KroneckerPrecision, Gaussian | None]:
    """The layers that are blocks of the prior with matrices of their own, after the precision; the precision of all
    others, and the prior without these blocks, None where nothing else is left."""
    blocks = {frozenset(_tree.paths(block.mean)): block for block in prior.blocks()}
    own: _Own = []
    others = []
    for layer in precision.layers:
        paths = frozenset(layer.layout.paths)
        after = blocks[paths].after_factors(layer) if paths in blocks else None
        if after is None:
            others.append(layer)
        else:
            own.append(after)
            del blocks[paths]
    if not own:
        return own, precision, prior
    rest = Blocks(tuple(blocks.values())) if blocks else None
    return own, KroneckerPrecision(tuple(others), precision.diagonal), rest


def from_kronecker_precision(mean: Params, precision: KroneckerPrecision) -> Blocks:
    """The Gaussian with a Kronecker-factored precision, as under a flat prior.

    Works under jit, so values are not checked: it is NaN where the precision has no inverse, up to rounding.

    Args:
        mean: pytree of floating-point arrays.
        precision: a Kronecker product per layer, a diagonal for all other leaves.

    Example:
        >>> layout = btl.gaussians.MatrixLayout("w", btl.gaussians.Rearrangement((2, 3), (("reshape", (1, 2, 3)),)))
        >>> layer = btl.gaussians.KroneckerFactors(4 * jnp.eye(2)[None], jnp.eye(3)[None], layout)
        >>> precision = btl.gaussians.KroneckerPrecision((layer,), {"w": None})
        >>> print(btl.gaussians.from_kronecker_precision({"w": jnp.zeros((2, 3))}, precision).variance["w"][0])
        [0.25 0.25 0.25]
    """
    check_arguments(from_kronecker_precision, locals())
    blocks: list[Gaussian] = []
    for layer in precision.layers:
        of = eigen(layer, None)
        blocks.append(posterior_of_layer(layer, of, mean, 1 / _resolved(of)))
    if jax.tree.leaves(precision.diagonal):
        blocks.append(from_diagonal_precision(_tree.like_selection(mean, precision.diagonal), precision.diagonal))
    return Blocks(tuple(blocks))


def _resolved(of: Eigen) -> jax.Array:
    """The eigenvalues; NaN where those of a factor are below its rounding error."""
    values = of.values
    for each in (of.input_values, of.output_values):
        least = each.shape[-1] * jnp.finfo(each.dtype).eps * each[:, -1]
        values = jnp.where(jnp.all(each[:, 0] > least), values, jnp.nan)
    return jnp.where(values > 0, values, jnp.nan)


def posterior_of_layer(layer: KroneckerFactors, of: Eigen, mean: Params, spectrum: jax.Array) -> Kronecker:
    """The Gaussian of one layer in the basis of its precision, ``None`` at all leaves of ``mean`` outside."""
    part = _tree.select_where(mean, lambda path: path in layer.layout.paths)
    scale = of.scale
    if scale.ndim == 3:
        # A number for a group commutes with its bases.
        scale, spectrum = jnp.ones((), scale.dtype), scale**2 * spectrum
    return Kronecker(part, scale, of.inputs, of.outputs, spectrum, layer.layout)


def _split(prior: Gaussian, precision: KroneckerPrecision) -> tuple[Gaussian, Columns | None]:
    """The prior without the low-rank parts that reach into layers, and those parts."""
    paths = {path for layer in precision.layers for path in layer.layout.paths}
    blocks = prior.blocks()
    touched = [not paths.isdisjoint(_tree.paths(block.mean)) for block in blocks]
    each = [block.without_columns() if inside else (block, None) for block, inside in zip(blocks, touched, strict=True)]
    bases, columns = zip(*each, strict=True)
    together = side_by_side(bases, columns)
    return (prior, None) if together is None else (Blocks(bases), together)


def _pieces(precision: KroneckerPrecision, eigens: list[Eigen], rest: Gaussian, columns: Columns) -> list[_Piece]:
    """The precision in independent parts, each with the columns' entries there."""
    pieces: list[_Piece] = []
    for layer, of_layer in zip(precision.layers, eigens, strict=True):
        # Eigenvectors have no derivatives where eigenvalues are equal; none are needed here.
        vectors = jax.lax.stop_gradient((of_layer.inputs, of_layer.outputs, of_layer.values))
        of = OfLayer(of_layer.rows, layer.inputs, layer.outputs, *vectors)
        q = jax.vmap(layer.layout.matrix)(columns.basis)
        pieces.append((of, q, partial(_columns_of, layer, columns.basis)))
    if jax.tree.leaves(precision.diagonal):
        variance = rest.restrict(precision.diagonal).variance
        gained = jax.tree.map(lambda h, a: h * a, precision.diagonal, variance)
        for path, values in _tree.by_paths(gained).items():
            q = _tree.by_paths(columns.basis)[path]
            pieces.append((OfDiagonal(values), q, partial(_alone, columns.basis, path)))
    return pieces


_Piece = tuple[OfLayer | OfDiagonal, jax.Array, Callable[[jax.Array], Params]]
"""The curvature's entry, that of Q (k, ...), and a function that puts columns (k, ...) back among the parameters."""


def _columns_of(layer: KroneckerFactors, basis: Params, matrices: jax.Array) -> Params:
    part = _tree.select_where(basis, lambda path: path in layer.layout.paths)
    return jax.vmap(layer.layout.tree)(matrices, part)


def _alone(basis: Params, path: str, columns: jax.Array) -> Params:
    return _tree.restructure({path: columns}, basis)


def eigen(layer: KroneckerFactors, prior: Gaussian | None) -> Eigen:
    """The precision of a layer as the prior sees it; None for the flat prior.

    Raises:
        ValueError: a prior that correlates the parameters of the layer, or has more than one variance in a row.
    """
    scale = jnp.ones((), layer.inputs.dtype) if prior is None else _scale(layer, prior)
    rows = scale[:, None] if scale.ndim == 1 else scale
    scaled = rows * layer.inputs * rows.mT if scale.ndim else scale**2 * layer.inputs
    if layer.inputs.shape[-1] == 1:
        # Every row of a table is a group, with the same vectors.
        input_values, inputs = scaled[..., 0], jnp.ones((len(layer.outputs), 1, 1), layer.inputs.dtype)
    else:
        input_values, inputs = jnp.linalg.eigh(scaled)
    output_values, outputs = jnp.linalg.eigh(layer.outputs)
    return Eigen(scale, inputs, outputs, _told_from_zero(input_values), _told_from_zero(output_values))


def _told_from_zero(values: jax.Array) -> jax.Array:
    """The eigenvalues of a factor, ascending, those that are lost in its rounding as 0.

    A factor of fewer examples than rows has such. Where the data outweigh the prior by 1e7 and more, rounding alone
    would make it seem that they had been measured.
    """
    if values.shape[-1] == 1:
        return jnp.maximum(values, 0)
    least = values.shape[-1] * jnp.finfo(values.dtype).eps * values[..., -1:]
    return jnp.where(values > least, values, 0)


def _scale(layer: KroneckerFactors, prior: Gaussian) -> jax.Array:
    """The prior's standard deviations of a layer, in the shapes of :class:`Eigen`."""
    layout, dtype = layer.layout, layer.inputs.dtype
    weights = jnp.sqrt(_variances(layout.weights, prior)).astype(dtype)
    shape = _tree.by_paths(prior.mean)[layout.weights].shape
    inside = layer.inputs.shape[-1] - (layout.bias is not None)
    if weights.size > 1 and inside == 1 and layout.bias is None:
        return weights.reshape(-1)[_places(layout, weights.shape, shape, groups=True)][:, :, None]
    rows = 0 if weights.size == 1 else _places(layout, weights.shape, shape)[0]
    weights = weights.reshape(-1)[rows]
    if layout.bias is None:
        return weights
    bias = jnp.sqrt(_variances(layout.bias, prior)).astype(dtype)
    if bias.size > 1:
        raise ValueError(_refusal(layout.bias, "has a variance for each of its numbers"))
    return jnp.append(jnp.broadcast_to(weights, (inside,)), bias.reshape(()))


def _variances(path: str, prior: Gaussian) -> jax.Array:
    """The prior variances of a parameter, in a shape that broadcasts to it."""
    owner = next(block for block in prior.blocks() if path in _tree.paths(block.mean))
    variances = owner.independent_variances()
    if variances is None:
        raise ValueError(_refusal(path, f"belongs to a {type(owner).__name__} Gaussian"))
    return jnp.asarray(_tree.by_paths(variances)[path])


def _places(layout: MatrixLayout, shape: tuple[int, ...], full: tuple[int, ...], groups: bool = False) -> np.ndarray:
    """For every row of a layer's matrix the place of its variance in an array of ``shape``: (1, I), the same in all
    groups, or (g, I) where every group may have its own."""
    places = np.broadcast_to(np.arange(np.prod(shape)).reshape(shape), full)
    matrix = np.asarray(layout.rearrangement(places))
    if np.any(matrix != (matrix[:, :, :1] if groups else matrix[:1, :, :1])):
        raise ValueError(_refusal(layout.weights, "has more than one variance in a row of its matrix"))
    return matrix[:, :, 0] if groups else matrix[:1, :, 0]


def _refusal(path: str, what: str) -> str:
    return (
        "Kronecker-factored curvature has a closed form only under priors with one variance per parameter or per row, "
        f"with a low-rank part or without, or in the matrices of the very same layers, and {path!r} {what}; give it a "
        "gaussians.isotropic prior (by path), a posterior by the same bias= or a gaussians.low_rank prior with one "
        "number per parameter as its diagonal, or another curvature: diagonal() goes with diagonal, low-rank and dense "
        "priors, low_rank(r), dual() and dense() with every prior"
    )
