"""Gaussians over the matrix of a layer whose covariance is diagonal in a Kronecker basis."""

from __future__ import annotations

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._rearrangement import Rearrangement
from bayestl._types import Params, Scalar
from bayestl.gaussians._base import Dual, Gaussian, leafwise
from bayestl.gaussians._by_path import Blocks
from bayestl.gaussians._matrix_layout import MatrixLayout
from bayestl.gaussians._validate import checked_mean

_COLUMNS_AT_ONCE = 32


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Kronecker(Gaussian):
    """One layer with a covariance that is diagonal in a Kronecker basis.

    With M the matrix (I, O) of the layer's parameters, a bias its last row: ``Sigma = B diag(lam) B^T`` and
    ``B = diag(d) Q_in (x) Q_out``, Q_in and Q_out orthonormal. A Laplace posterior with Kronecker-factored curvature is
    of this type, one for each layer in :class:`Blocks`; :func:`kronecker` makes priors ``R (x) C`` of it. A layer in g
    groups has g such matrices, independent of each other. Storage I^2 + O^2 beside two copies of the layer, every query
    O(I O (I + O)).

    The weights without their bias have no such covariance, neither as a marginal nor as a conditional: those are
    refused. The bias without the weights has.

    Attributes:
        mean: pytree with the leaves of one layer.
        scale: d, (I,), or one number for all rows.
        inputs: Q_in, (g, I, I).
        outputs: Q_out, (g, O, O).
        spectrum: lam, (g, I, O), positive.
        layout: where in the tree the matrix is.
    """

    mean: Any
    scale: Any
    inputs: Any
    outputs: Any
    spectrum: Any
    layout: MatrixLayout = dataclasses.field(metadata={"static": True})

    @property
    def _rows(self) -> jax.Array:
        """d as a factor of a matrix (g, I, O)."""
        return self.scale[:, None] if self.scale.ndim else self.scale

    def _along(self, matrix: jax.Array) -> jax.Array:
        """``Q_in^T M Q_out``."""
        return _product(_product(self.inputs.mT, matrix), self.outputs)

    def _across(self, matrix: jax.Array) -> jax.Array:
        """``Q_in M Q_out^T``."""
        return _product(_product(self.inputs, matrix), self.outputs.mT)

    def _squared_across(self, weights: jax.Array) -> jax.Array:
        """``(Q_in Q_in) W (Q_out Q_out)^T``, entries squared."""
        return _product(_product(self.inputs**2, weights), (self.outputs**2).mT)

    def precision_quadratic(self, v: Params) -> jax.Array:
        """See :meth:`Gaussian.precision_quadratic`."""
        along = self._along(self.layout.matrix(v) / self._rows)
        return jnp.sum(along / self.spectrum * along)

    def log_det_covariance(self) -> jax.Array:
        """See :meth:`Gaussian.log_det_covariance`."""
        rows = jnp.broadcast_to(self._rows, self.spectrum.shape)
        return jnp.sum(jnp.log(self.spectrum)) + 2 * jnp.sum(jnp.log(rows))

    def variance(self) -> Params:
        """See :meth:`Gaussian.variance`."""
        return self.layout.tree(self._rows**2 * self._squared_across(self.spectrum), self.mean)

    def precision_diagonal(self) -> Params:
        """See :meth:`Gaussian.precision_diagonal`."""
        return self.layout.tree(self._squared_across(1 / self.spectrum) / self._rows**2, self.mean)

    def precision_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.precision_mv`."""
        along = self._along(self.layout.matrix(v) / self._rows) / self.spectrum
        return self.layout.tree(self._across(along) / self._rows, self.mean)

    def covariance_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.covariance_mv`."""
        along = self._along(self.layout.matrix(v) * self._rows) * self.spectrum
        return self.layout.tree(self._across(along) * self._rows, self.mean)

    def whiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.whiten`."""
        along = self._along(self.layout.matrix(v) / self._rows)
        return self.layout.tree(along * jax.lax.rsqrt(self.spectrum), self.mean)

    def unwhiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.unwhiten`."""
        across = self._across(self.layout.matrix(v) * jnp.sqrt(self.spectrum))
        return self.layout.tree(across * self._rows, self.mean)

    def around(self, mean: Params) -> Kronecker:
        """See :meth:`Gaussian.around`."""
        return dataclasses.replace(self, mean=mean)

    def rescale(self, c: Any) -> Kronecker:
        """See :meth:`Gaussian.rescale`."""
        found = _tree.by_paths(leafwise(c, self.mean))
        if self.layout.bias is None or jax.tree.structure(c) == jax.tree.structure(0):
            factor = jnp.asarray(found[self.layout.weights], self.spectrum.dtype)
            return dataclasses.replace(self, spectrum=factor * self.spectrum)
        return dataclasses.replace(self, scale=self.scale * rows_of(self, found) ** 0.5)

    def inflate(self, eps: Scalar) -> Kronecker:
        """See :meth:`Gaussian.inflate`.

        Raises:
            ValueError: a bias in the layer whose prior variance differs from that of the weights.
        """
        scale = self.scale
        if scale.ndim:
            if not (_tree.is_concrete(scale) and bool(jnp.all(scale == scale[0]))):
                raise ValueError(
                    f"Sigma + eps I has no closed form for the layer of {self.layout.weights!r}, whose bias has a "
                    "prior variance of its own (under jit that of every bias counts as its own); use "
                    "curvature.kronecker with bias=curvature.separate"
                )
            scale = scale[0]
        return dataclasses.replace(self, scale=jnp.ones_like(scale), spectrum=scale**2 * self.spectrum + eps)

    def restrict(self, selection: Any) -> Kronecker:
        """See :meth:`Gaussian.restrict`.

        Raises:
            ValueError: the weights of a layer without its bias.
        """
        part = _tree.as_selection(self.mean, selection)
        if self._is_whole(part, "marginal"):
            return self
        weights = (self._rows * self.inputs)[:, -1:] ** 2
        return self._bias_alone(part, _product(weights, self.spectrum))

    def condition(self, values: Params, selection: Any) -> Kronecker:
        """See :meth:`Gaussian.condition`.

        Raises:
            ValueError: the weights of a layer without its bias.
        """
        part = _tree.as_selection(self.mean, selection)
        if self._is_whole(part, "conditional"):
            return self
        deviation = _tree.sub(_tree.merge(_tree.complement(values, part), part), self.mean)
        pull = _tree.like_selection(self.precision_mv(deviation), part)
        weights = (self.inputs / self._rows)[:, -1:] ** 2
        result = self._bias_alone(part, 1 / _product(weights, 1 / self.spectrum))
        return dataclasses.replace(result, mean=_tree.sub(part, result.covariance_mv(pull)))

    def _is_whole(self, part: Params, what: str) -> bool:
        kept = set(_tree.paths(part))
        if self.layout.weights in kept and self.layout.bias not in (None, *kept):
            raise ValueError(
                f"the {what} of {self.layout.weights!r} without {self.layout.bias!r} has no closed form in a "
                "Kronecker-factored layer; select both, or keep them apart from the start: curvature.kronecker with "
                "bias=curvature.separate"
            )
        return self.layout.weights in kept

    def _bias_alone(self, part: Params, spectrum: jax.Array) -> Kronecker:
        (bias,) = jax.tree.leaves(part)
        ones = jnp.ones((len(spectrum), 1, 1), spectrum.dtype)
        return Kronecker(part, ones[0, 0, 0], ones, self.outputs, spectrum, self.layout.bias_alone(bias.shape))

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`. One quadratic form for every parameter, unless the dual asks for fewer."""
        if dual is not None and dual.num_directions < self.spectrum.size:
            return dual.trace(self.variance(), lambda v: _tree.vdot(v, self.covariance_mv(v)))
        return self._over_columns(quadratic, self._rows, jnp.sqrt(self.spectrum))

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`. One quadratic form for every parameter."""
        return self._over_columns(quadratic, 1 / self._rows, jax.lax.rsqrt(self.spectrum))

    @property
    def num_directions(self) -> int:
        """See :attr:`Gaussian.num_directions`."""
        return self.spectrum.size

    def _over_columns(self, quadratic: Any, rows: jax.Array, lengths: jax.Array) -> jax.Array:
        """The sum of a quadratic form over the columns of ``(diag(rows) Q_in (x) Q_out) diag(lengths)``."""
        _, inputs, outputs = lengths.shape
        zeros = jnp.zeros_like(lengths)

        def one(number: jax.Array) -> jax.Array:
            g, rest = jnp.divmod(number, inputs * outputs)
            i, o = jnp.divmod(rest, outputs)
            column = jnp.outer(self.inputs[g, :, i], self.outputs[g, :, o]) * lengths[g, i, o]
            return quadratic(self.layout.tree(zeros.at[g].set(column * rows), self.mean))

        return jnp.sum(jax.lax.map(one, jnp.arange(lengths.size), batch_size=_COLUMNS_AT_ONCE))

    def realign(self, like: Params) -> Kronecker:
        """See :meth:`Gaussian.realign`."""
        return dataclasses.replace(self, mean=_tree.restructure(_tree.by_paths(self.mean), like))


def rows_of(gaussian: Kronecker, leaves: dict[str, Any]) -> jax.Array:
    """One number per row of the matrix, (I,), from one per leaf."""
    count, dtype = gaussian.spectrum.shape[1], gaussian.spectrum.dtype
    weights, bias = (jnp.asarray(leaves[path], dtype) for path in gaussian.layout.paths)
    return jnp.append(jnp.full(count - 1, weights), bias)


def kronecker(mean: Params, rows: Params, columns: Params) -> Blocks:
    """Independent leaves, each with a matrix-normal distribution: ``Sigma = R (x) C``.

    A leaf is a matrix whose columns are its last axis and whose rows are all others together, so that a dense or
    convolution kernel has one row per input and one column per output: ``Cov(W_io, W_jq) = R_ij C_oq``.

    Args:
        mean: pytree of floating-point arrays, each with at least one axis.
        rows: R for every leaf, (I, I), symmetric and positive definite.
        columns: C for every leaf, (O, O), likewise.

    Raises:
        ValueError: structures or shapes that differ, non-finite values, a matrix that is not symmetric or not positive
            definite.

    Reference:
        Louizos and Welling 2016, "Structured and Efficient Variational Deep Learning with Matrix Gaussian Posteriors",
        arXiv 1603.04733.

    Example:
        >>> g = btl.gaussians.kronecker({"w": jnp.zeros((2, 3))}, {"w": 4 * jnp.eye(2)}, {"w": jnp.eye(3)})
        >>> print(g.variance()["w"][0])
        [4. 4. 4.]
    """
    mean = checked_mean(mean)
    blocks = []
    for path, leaf in _tree.by_paths(mean).items():
        if not leaf.ndim:
            raise ValueError(f"mean at {path!r} is a single number; a leaf needs rows and columns, at least one axis")
        shape = (1, leaf.size // leaf.shape[-1], leaf.shape[-1])
        part = _tree.select_where(mean, lambda other, path=path: other == path)
        r, c = (
            _decomposed(name, tree, path, n, leaf.dtype)
            for name, tree, n in (("rows", rows, shape[1]), ("columns", columns, shape[2]))
        )
        layout = MatrixLayout(path, Rearrangement(leaf.shape, (("reshape", shape),)))
        spectrum = r[0][:, :, None] * c[0][:, None, :]
        blocks.append(Kronecker(part, jnp.ones((), leaf.dtype), r[1], c[1], spectrum, layout))
    return Blocks(tuple(blocks))


def _decomposed(name: str, tree: Params, path: str, size: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues (1, n) and eigenvectors (1, n, n) of a covariance."""
    found = _tree.by_paths(tree)
    where = f"{name} at {path!r}"
    if path not in found or jnp.shape(found[path]) != (size, size):
        have = f"has shape {jnp.shape(found[path])}" if path in found else "is missing"
        raise ValueError(f"{where} {have}; a covariance of shape {(size, size)} is wanted for this leaf of mean")
    matrix = jnp.asarray(found[path], dtype)
    _tree.check_finite(name, {path: matrix})
    values, vectors = jnp.linalg.eigh(matrix)
    if _tree.is_concrete(matrix):
        skew = float(jnp.max(jnp.abs(matrix - matrix.T)))
        if skew > 100 * float(jnp.finfo(dtype).eps) * float(jnp.max(jnp.abs(matrix))):
            raise ValueError(f"{where} is not symmetric: it differs from its transpose by {skew:.3g}")
        if not float(values[0]) > 0:
            raise ValueError(
                f"{where} is not positive definite: its smallest eigenvalue is {float(values[0]):.3g}; add a floor "
                "eps * I"
            )
    return values[None], vectors[None]


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)
