"""How low-rank columns change with the Gaussian that they are on top of.

A low-rank Gaussian is ``S (I + Q diag(lam) Q^T) S^T`` with S the root of its base. A change of the base changes the
root, and with it the coordinates of the columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Params, Scalar
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._matrices import Columns
from bayestl.gaussians._validate import values_outside
from bayestl.gaussians._white import squared_mv


class Divided(NamedTuple):
    """Columns in the coordinates of a selection's conditional.

    Attributes:
        base: the conditional of the base.
        inside: R, the columns in the coordinates of its root.
        outside: Z, the remainder of the columns.
        along: ``Z^T S^-1 r``, r the deviation of the parameters that are given.
    """

    base: Gaussian
    inside: Params
    outside: Params
    along: jax.Array


class Measured(NamedTuple):
    """Columns after a diagonal precision has been added.

    Attributes:
        base: the base with that precision, with root T.
        columns: ``T^T S^-T Q``.
        gram: M, the precision along the columns: I minus the Gram matrix of ``columns``.
    """

    base: Gaussian
    columns: Params
    gram: jax.Array


class Root:
    """The root S of any Gaussian."""

    def __init__(self, base: Gaussian):
        self.base = base

    def unwhiten_transposed(self, v: Params) -> Params:
        """``S^T v``."""
        return transposed(self.base.unwhiten, self.base.mean)(v)

    def whiten_transposed(self, v: Params) -> Params:
        """``S^-T v``."""
        return transposed(self.base.whiten, self.base.mean)(v)

    def columns(self, columns: Columns) -> Params:
        """``S Q``."""
        return jax.vmap(self.base.unwhiten)(columns.basis)

    def precision_columns(self, columns: Columns) -> Params:
        """``S^-T Q``."""
        return jax.vmap(self.whiten_transposed)(columns.basis)

    def variance(self, columns: Columns) -> Params:
        """The marginal variances."""
        rows = self.columns(columns)
        if columns.remaining is None:
            return _tree.add(self.base.variance, squared_mv(rows, columns.eigenvalues))
        outside = _tree.sub(self.base.variance, squared_mv(rows, jnp.ones_like(columns.ratios)))
        return jax.tree.map(_positive_sum, outside, squared_mv(rows, columns.ratios))

    def precision_diagonal(self, columns: Columns) -> Params:
        """The diagonal of the precision."""
        rows = self.precision_columns(columns)
        outside = _tree.sub(self.base.precision_diagonal(), squared_mv(rows, jnp.ones_like(columns.ratios)))
        return jax.tree.map(_positive_sum, outside, squared_mv(rows, 1 / columns.ratios))

    def inflated(self, columns: Columns, eps: Scalar) -> tuple[Gaussian, Params]:
        """The base with ``eps I`` added, and the columns in the coordinates of its root."""
        base = self.base.inflate(eps)
        return base, jax.vmap(base.whiten)(self.columns(columns))

    def restricted(self, columns: Columns, part: Params) -> tuple[Gaussian, Params]:
        """The marginal of the base, and the columns in the coordinates of its root."""
        base = self.base.restrict(part)
        return base, jax.vmap(base.whiten)(_tree.like_selection(self.columns(columns), part))

    def divided(self, columns: Columns, values: Params, part: Params, rest: Params) -> Divided:
        """With T the root of the base's conditional and E the selection's columns of the identity, ``A = T^T E^T S^-T``
        has orthonormal rows; R = A Q, Z = Q - A^T R."""
        base, zeros = self.base.condition(values, part), _tree.zeros_like(self.base.mean)
        root = transposed(base.unwhiten, part)
        inside = jax.vmap(lambda c: root(_tree.like_selection(c, part)))(self.precision_columns(columns))

        def back(x: Params) -> Params:
            return self.base.whiten(_tree.merge(base.unwhiten(x), _tree.complement(zeros, part)))

        outside = _tree.sub(columns.basis, jax.vmap(back)(inside))
        deviation = _tree.merge(
            _tree.sub(values_outside(values, part, self.base.mean), rest), _tree.like_selection(zeros, part)
        )
        return Divided(base, inside, outside, _tree.columns_dot(outside, self.base.whiten(deviation)))

    def measured(self, columns: Columns, diagonal: Params) -> Measured:
        """With P the base's covariance after the measurement, ``M = (S Q)^T H P (S^-T Q)``."""
        base, rows = self.base.add_diagonal_precision(diagonal), self.precision_columns(columns)
        scaled = jax.tree.map(jnp.multiply, self.columns(columns), diagonal)
        gram = _tree.columns_gram(scaled, jax.vmap(base.covariance_mv)(rows))
        return Measured(base, jax.vmap(root_of(base).unwhiten_transposed)(rows), 0.5 * (gram + gram.T))


class IndependentRoot(Root):
    """The root ``S = a^1/2`` of independent parameters, which scales every coordinate of a column by itself."""

    def __init__(self, base: Gaussian, variances: Params):
        super().__init__(base)
        self.variances = variances

    def unwhiten_transposed(self, v: Params) -> Params:
        """See :meth:`Root.unwhiten_transposed`: the root is symmetric."""
        return self.base.unwhiten(v)

    def whiten_transposed(self, v: Params) -> Params:
        """See :meth:`Root.whiten_transposed`."""
        return self.base.whiten(v)

    def variance(self, columns: Columns) -> Params:
        """See :meth:`Root.variance`."""
        if columns.remaining is None:
            inside = squared_mv(columns.basis, columns.eigenvalues)
            return jax.tree.map(lambda a, s: a * (1 + s), self.variances, inside)
        length = squared_mv(columns.basis, jnp.ones_like(columns.ratios))
        inside = squared_mv(columns.basis, columns.ratios)
        return jax.tree.map(lambda a, i, s: a * _positive_sum(1 - s, i), self.variances, inside, length)

    def precision_diagonal(self, columns: Columns) -> Params:
        """See :meth:`Root.precision_diagonal`."""
        inside = squared_mv(columns.basis, 1 / columns.ratios)
        length = squared_mv(columns.basis, jnp.ones_like(columns.ratios))
        return jax.tree.map(lambda a, i, s: _positive_sum(1 - s, i) / a, self.variances, inside, length)

    def inflated(self, columns: Columns, eps: Scalar) -> tuple[Gaussian, Params]:
        """See :meth:`Root.inflated`."""
        base = self.base.inflate(eps)
        return base, jax.tree.map(lambda q, a: q * jnp.sqrt(a / (a + eps)), columns.basis, self.variances)

    def restricted(self, columns: Columns, part: Params) -> tuple[Gaussian, Params]:
        """See :meth:`Root.restricted`."""
        return self.base.restrict(part), _tree.like_selection(columns.basis, part)

    def divided(self, columns: Columns, values: Params, part: Params, rest: Params) -> Divided:
        """See :meth:`Root.divided`."""
        inside, outside = _tree.like_selection(columns.basis, part), _tree.complement(columns.basis, part)
        deviation = self.base.restrict(rest).whiten(_tree.sub(values_outside(values, part, self.base.mean), rest))
        return Divided(self.base.condition(values, part), inside, outside, _tree.columns_dot(outside, deviation))

    def measured(self, columns: Columns, diagonal: Params) -> Measured:
        """Unlike the Woodbury identity for the precision, this form is a sum of positive terms for lam >= 0."""
        gained = jax.tree.map(jnp.multiply, diagonal, self.variances)
        along = jax.tree.map(lambda q, x: q * jnp.sqrt(x / (1 + x)), columns.basis, gained)
        rest = jax.tree.map(lambda q, x: q * jax.lax.rsqrt(1 + x), columns.basis, gained)
        return Measured(self.base.add_diagonal_precision(diagonal), rest, _tree.columns_gram(along, along))


def _positive_sum(outside: jax.Array, inside: jax.Array) -> jax.Array:
    """What is outside of the columns, a squared length that rounding may leave below zero, and what is inside."""
    return jnp.maximum(outside, 0) + inside


def root_of(base: Gaussian) -> Root:
    """The root of a Gaussian, specialised to its structure where possible."""
    variances = base.independent_variances()
    return Root(base) if variances is None else IndependentRoot(base, variances)


def transposed(linear: Callable[[Params], Params], like: Params) -> Callable[[Params], Params]:
    """The transpose of a linear map from trees like ``like``."""
    transpose = jax.linear_transpose(linear, like)
    return lambda v: transpose(v)[0]
