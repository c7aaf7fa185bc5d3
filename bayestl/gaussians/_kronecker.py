"""Gaussians over the matrix of a layer whose covariance is diagonal in a Kronecker basis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._rearrangement import Rearrangement
from bayestl._types import Inputs, Outputs, Params, Scalar, Selection
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._dense import dense_like
from bayestl.gaussians._kronecker_sum import same_matrix, summed
from bayestl.gaussians._matrices import Dual, KroneckerFactors
from bayestl.gaussians._matrix_layout import MatrixLayout, steps_from_json
from bayestl.gaussians._storable import Parameter, Shape, Shapes, Stored, check_settings
from bayestl.gaussians._validate import check_added, leafwise, values_outside

_COLUMNS_AT_ONCE = 32
# Parameters of a layer whose covariance may become dense: 64 MB of float32.
_DENSE = 4096


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Kronecker(Gaussian, kind="kronecker"):
    """One layer with a covariance that is diagonal in a Kronecker basis.

    M is the matrix (I, O) of the layer's parameters, with a bias as its last row: ``Sigma = B diag(lam) B^T`` and
    ``B = diag(d) Q_in (x) Q_out``, Q_in and Q_out orthonormal. A Laplace posterior with Kronecker-factored curvature is
    of this type, one per layer in :class:`Blocks`; :func:`kronecker` makes priors ``R (x) C`` of this type. A layer in
    g groups has g such matrices, independent of each other. It stores I^2 + O^2 numbers beside two copies of the layer;
    every query takes O(I O (I + O)).

    The weights without their bias do not have such a covariance, neither as a marginal nor as a conditional; both are
    refused. The bias without the weights does.

    Attributes:
        mean: pytree with the leaves of one layer.
        scale: d, (I,), or one number for all rows.
        inputs: Q_in, (g, I, I), or (1, I, I) where all groups share it.
        outputs: Q_out, (g, O, O), or (1, O, O). In a table of look-ups, each row is a group, and all groups share both.
        spectrum: lam, (g, I, O), positive.
        layout: which leaves of the tree form the matrix.
    """

    mean: Any
    scale: Any
    inputs: Inputs
    outputs: Outputs
    spectrum: Any
    layout: MatrixLayout = dataclasses.field(metadata={"static": True})

    @property
    def _rows(self) -> jax.Array:
        """d in a shape that multiplies a matrix (g, I, O)."""
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

    @property
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
        """See :meth:`Gaussian.rescale`.

        Raises:
            ValueError: more than one number for a leaf, which would destroy the Kronecker structure.
        """
        factors = _tree.by_paths(leafwise(c, self.mean))
        if self.layout.bias is None or jax.tree.structure(c) == jax.tree.structure(0):
            factor = jnp.asarray(factors[self.layout.weights], self.spectrum.dtype)
            return dataclasses.replace(self, spectrum=factor * self.spectrum)
        return dataclasses.replace(self, scale=self.scale * rows_of(self, factors) ** 0.5)

    def inflate(self, eps: Scalar) -> Kronecker:
        """See :meth:`Gaussian.inflate`.

        Raises:
            ValueError: a bias in the layer whose prior variance differs from that of the weights.
        """
        check_added(eps)
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

    def restrict(self, selection: Selection) -> Kronecker:
        """See :meth:`Gaussian.restrict`.

        Raises:
            ValueError: the weights of a layer without its bias.
        """
        part = _tree.as_selection(self.mean, selection)
        if self._is_whole(part, "marginal"):
            return self
        weights = (self._rows * self.inputs)[:, -1:] ** 2
        return self._bias_alone(part, _product(weights, self.spectrum))

    def condition(self, values: Params, selection: Selection) -> Kronecker:
        """See :meth:`Gaussian.condition`.

        Raises:
            ValueError: the weights of a layer without its bias.
        """
        check_arguments(Kronecker.condition, locals())
        part = _tree.as_selection(self.mean, selection)
        if self._is_whole(part, "conditional"):
            return self
        deviation = _tree.sub(_tree.merge(values_outside(values, part, self.mean), part), self.mean)
        pull = _tree.like_selection(self.precision_mv(deviation), part)
        weights = (self.inputs / self._rows)[:, -1:] ** 2
        result = self._bias_alone(part, 1 / _product(weights, 1 / self.spectrum))
        return dataclasses.replace(result, mean=_tree.sub(part, result.covariance_mv(pull)))

    def _is_whole(self, part: Params, what: str) -> bool:
        selected = set(_tree.paths(part))
        if self.layout.weights in selected and self.layout.bias not in (None, *selected):
            raise ValueError(
                f"the {what} of {self.layout.weights!r} without {self.layout.bias!r} has no closed form in a "
                "Kronecker-factored layer; select both, or keep them apart from the start: curvature.kronecker with "
                "bias=curvature.separate"
            )
        return self.layout.weights in selected

    def _bias_alone(self, part: Params, spectrum: jax.Array) -> Kronecker:
        (bias,) = jax.tree.leaves(part)
        ones = jnp.ones((len(spectrum), 1, 1), spectrum.dtype)
        return Kronecker(part, ones[0, 0, 0], ones, self.outputs, spectrum, self.layout.bias_alone(bias.shape))

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`. Takes one quadratic form per parameter, unless ``dual`` needs fewer."""
        if dual is not None and dual.num_directions < self.spectrum.size:
            return dual.trace(self.variance, lambda v: _tree.vdot(v, self.covariance_mv(v)))
        return self._over_columns(quadratic, self._rows, jnp.sqrt(self.spectrum))

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`. Takes one quadratic form per parameter."""
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
            row, column = (basis[g % len(basis)] for basis in (self.inputs, self.outputs))
            column = jnp.outer(row[:, i], column[:, o]) * lengths[g, i, o]
            return quadratic(self.layout.tree(zeros.at[g].set(column * rows), self.mean))

        return jnp.sum(jax.lax.map(one, jnp.arange(lengths.size), batch_size=_COLUMNS_AT_ONCE))

    def add_diagonal_precision(self, diagonal: Params) -> Gaussian:
        """See :meth:`Gaussian.add_diagonal_precision`: dense, in which a layer of few parameters has a closed form.

        Raises:
            TypeError: more than 4096 parameters in the layer.
        """
        return self._as_dense().add_diagonal_precision(diagonal)

    def diagonal_log_det_ratio(self, diagonal: Params) -> jax.Array:
        """See :meth:`Gaussian.diagonal_log_det_ratio`.

        Raises:
            TypeError: more than 4096 parameters in the layer.
        """
        return self._as_dense().diagonal_log_det_ratio(diagonal)

    def _as_dense(self) -> Gaussian:
        if self.spectrum.size > _DENSE:
            raise TypeError(f"{self._no_diagonal_precision()}; of a layer of at most {_DENSE} parameters it is dense")
        return dense_like(self)

    def after_factors(self, factors: KroneckerFactors) -> tuple[Kronecker, jax.Array] | None:
        """See :meth:`Gaussian.after_factors`: in the eigenvectors of the sum, as far as a Kronecker basis holds them,
        the diagonal of the precision is kept. That is the least ``KL(q || exact)`` in this basis."""
        shape = _tree.by_paths(self.mean)[self.layout.weights].shape
        if not same_matrix(self.layout, factors.layout, shape):
            return None
        *basis, spectrum, lowered = summed(self.scale, self.inputs, self.outputs, self.spectrum, factors)
        return dataclasses.replace(self, inputs=basis[0], outputs=basis[1], spectrum=spectrum), lowered

    def realign(self, like: Params) -> Kronecker:
        """See :meth:`Gaussian.realign`."""
        return dataclasses.replace(self, mean=_tree.restructure(_tree.by_paths(self.mean), like))

    def covariance_of_products(self, inputs: jax.Array, gradients: jax.Array) -> jax.Array:
        """See :meth:`Gaussian.covariance_of_products`.

        ``sum_io lam_io M_fio M_hio`` with ``M_f = sum_p (Q_in^T d a_p) (g_fp^T Q_out)``: rotating a and g costs
        I^2 + O^2, where rotating their products, one matrix for every output, would cost I O (I + O).
        """
        if self.layout.bias is not None:
            inputs = jnp.concatenate([inputs, jnp.ones((*inputs.shape[:-1], 1), inputs.dtype)], axis=-1)
        a = _einsum("bpgi,gij->bpgj", inputs * self.scale, self.inputs)
        z = _einsum("fbpgo,goq->fbpgq", gradients, self.outputs)
        if a.shape[1] == 1:
            a, z = a[:, 0], z[:, :, 0]
            z = z * jnp.sqrt(_einsum("bgi,gio->bgo", a * a, self.spectrum))
            return _einsum("fbgo,hbgo->bfh", z, z)
        matrix = _einsum("bpgi,fbpgo->bfgio", a, z) * jnp.sqrt(self.spectrum)
        matrix = matrix.reshape(*matrix.shape[:2], -1)
        return _einsum("bfm,bhm->bfh", matrix, matrix)

    def covariance_of_rows(self, rows: jax.Array, gradients: jax.Array) -> jax.Array:
        """See :meth:`Gaussian.covariance_of_rows`.

        Raises:
            ValueError: groups that do not share Q_out.
        """
        if len(self.outputs) != 1:
            raise ValueError(f"the {len(self.outputs)} rows of {self.layout.weights!r} do not share their output basis")
        z = _einsum("fbpo,oq->fbpq", gradients * self.scale, self.outputs[0])
        z = z * jnp.sqrt(self.spectrum[:, 0].at[rows].get(mode="fill", fill_value=0))
        return _einsum("fbpo,hbpo->bfh", z, z)

    def stored(self) -> Stored:
        """See :meth:`Gaussian.stored`."""
        arrays = {"scale": self.scale, "inputs": self.inputs, "outputs": self.outputs, "spectrum": self.spectrum}
        steps = [[name, list(argument)] for name, argument in self.layout.rearrangement.steps]
        return Stored(
            {"mean": self.mean}, arrays, {"weights": self.layout.weights, "bias": self.layout.bias, "steps": steps}
        )

    @classmethod
    def stored_shapes(cls, settings: Mapping[str, Any], parameters: Sequence[Parameter]) -> Shapes:
        """See :meth:`Gaussian.stored_shapes`."""
        check_settings(settings, {"weights", "bias", "steps"})
        shapes = {p.path: p.shape for p in parameters}
        weights, bias = settings["weights"], settings["bias"]
        used = [weights] if bias is None else [weights, bias]
        if not all(isinstance(path, str) for path in used) or sorted(used) != sorted(shapes):
            raise ValueError("a matrix is of other parameters")
        steps = steps_from_json(settings["steps"])
        shape = Rearrangement(shapes[weights], steps).result
        if len(shape) != 3:
            raise ValueError(f"the steps to a matrix end in the shape {shape}, not in (groups, inputs, outputs)")
        groups, inputs, outputs = shape
        if bias is not None:
            inputs += 1
            if math.prod(shapes[bias]) != groups * outputs:
                raise ValueError(f"a bias of shape {shapes[bias]} is not a row of matrices {shape}")
        arrays = {
            "scale": Shape((inputs,), broadcasting=True),
            "spectrum": Shape((groups, inputs, outputs)),
            # Groups may share their bases.
            "inputs": Shape((groups, inputs, inputs), broadcasting=True),
            "outputs": Shape((groups, outputs, outputs), broadcasting=True),
        }
        return Shapes({"mean": {path: Shape(shape) for path, shape in shapes.items()}}, arrays)

    @classmethod
    def from_stored(cls, stored: Stored) -> Kronecker:
        """See :meth:`Gaussian.from_stored`."""
        mean, settings = stored.trees["mean"], stored.settings
        shape = _tree.by_paths(mean)[settings["weights"]].shape
        rearrangement = Rearrangement(shape, steps_from_json(settings["steps"]))
        layout = MatrixLayout(settings["weights"], rearrangement, settings["bias"])
        return Kronecker(mean, **stored.arrays, layout=layout)

    def check_values(self) -> None:
        """See :meth:`Gaussian.check_values`."""
        _tree.check_finite("mean", self.mean)
        _tree.check_positive("scale", self.scale)
        _tree.check_positive("spectrum", self.spectrum)
        for name, basis in (("inputs", self.inputs), ("outputs", self.outputs)):
            _tree.check_finite(name, basis)
            # The tolerance is half of the digits, as for a low-rank basis.
            off = float(jnp.max(jnp.abs(basis.mT @ basis - jnp.eye(basis.shape[-1]))))
            if off > float(jnp.finfo(basis.dtype).eps) ** 0.5:
                raise ValueError(f"the columns of {name} are not orthonormal: off by {off:.3g}")


def rows_of(gaussian: Kronecker, leaves: dict[str, Any]) -> jax.Array:
    """One number per row of the matrix, (I,), from one per leaf."""
    count, dtype = gaussian.spectrum.shape[1], gaussian.spectrum.dtype
    weights, bias = (jnp.asarray(leaves[path], dtype) for path in gaussian.layout.paths)
    return jnp.append(jnp.full(count - 1, weights), bias)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)


def _einsum(subscripts: str, *operands: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, *operands, precision=Precision.HIGHEST)
