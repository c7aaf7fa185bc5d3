"""Any Gaussian with a low-rank change of its covariance, as seen by that Gaussian."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._types import Params, Scalar
from bayestl.gaussians._base import Dual, Gaussian
from bayestl.gaussians._canonical import canonical
from bayestl.gaussians._low_rank import LowRank, middle_of_conditional, squared_mv


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class LowRankUpdate(Gaussian):
    """A low-rank change of another Gaussian: ``Sigma = S (I + Q diag(lam) Q^T) S^T``, Q^T Q = I, lam > -1.

    S is the square root of ``base``, that of its ``unwhiten``, and so :class:`LowRank` is the case of a diagonal base.
    A Laplace posterior with Kronecker-factored curvature under a low-rank prior is of this type, and so is one with
    low-rank curvature under a Kronecker-factored prior. Storage k copies of the parameters beside the base, every
    query O(D k) beside the base's own.

    Attributes:
        base: a Gaussian of any structure, whose mean is the mean.
        basis: Q, leaves (k, *shape), orthonormal columns (or zero ones), in the coordinates that ``base`` whitens to.
        eigenvalues: lam, (k,).
    """

    base: Any
    basis: Any
    eigenvalues: Any

    @property
    def mean(self) -> Params:
        """The mean of the base."""
        return self.base.mean

    @property
    def rank(self) -> int:
        """The number of columns k."""
        return self.eigenvalues.shape[-1]

    @property
    def num_directions(self) -> int:
        """See :attr:`Gaussian.num_directions`."""
        return self.base.num_directions + self.rank

    @property
    def _white(self) -> LowRank:
        """``I + Q diag(lam) Q^T``, over the coordinates that the base whitens to."""
        ones = jax.tree.map(lambda m: jnp.ones((), m.dtype), self.mean)
        return LowRank(self.mean, ones, self.basis, self.eigenvalues)

    def _columns(self) -> Params:
        """``S Q``."""
        return jax.vmap(self.base.unwhiten)(self.basis)

    def _precision_columns(self) -> Params:
        """``S^-T Q``."""
        return jax.vmap(transposed(self.base.whiten, self.mean))(self.basis)

    def precision_quadratic(self, v: Params) -> jax.Array:
        """See :meth:`Gaussian.precision_quadratic`."""
        return self._white.precision_quadratic(self.base.whiten(v))

    def log_det_covariance(self) -> jax.Array:
        """See :meth:`Gaussian.log_det_covariance`."""
        return self.base.log_det_covariance() + jnp.sum(jnp.log1p(self.eigenvalues))

    def variance(self) -> Params:
        """See :meth:`Gaussian.variance`."""
        return _tree.add(self.base.variance(), squared_mv(self._columns(), self.eigenvalues))

    def precision_diagonal(self) -> Params:
        """See :meth:`Gaussian.precision_diagonal`."""
        columns = self._precision_columns()
        inside = squared_mv(columns, 1 / (1 + self.eigenvalues))
        length = squared_mv(columns, jnp.ones_like(self.eigenvalues))
        # What is outside of the columns is a squared length, which rounding may leave below zero.
        return jax.tree.map(lambda p, i, s: jnp.maximum(p - s, 0) + i, self.base.precision_diagonal(), inside, length)

    def precision_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.precision_mv`."""
        return transposed(self.base.whiten, self.mean)(self._white.precision_mv(self.base.whiten(v)))

    def covariance_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.covariance_mv`."""
        return self.base.unwhiten(self._white.covariance_mv(transposed(self.base.unwhiten, self.mean)(v)))

    def whiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.whiten`."""
        return self._white.whiten(self.base.whiten(v))

    def unwhiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.unwhiten`."""
        return self.base.unwhiten(self._white.unwhiten(v))

    def around(self, mean: Params) -> LowRankUpdate:
        """See :meth:`Gaussian.around`."""
        return dataclasses.replace(self, base=self.base.around(mean))

    def rescale(self, c: Any) -> LowRankUpdate:
        """See :meth:`Gaussian.rescale`. Touches the base alone, whose square root takes the factors on its left."""
        return dataclasses.replace(self, base=self.base.rescale(c))

    def inflate(self, eps: Scalar) -> LowRankUpdate:
        """See :meth:`Gaussian.inflate`. Builds the canonical form anew: O(D k^2)."""
        return self._upon(self.base.inflate(eps), self._columns())

    def restrict(self, selection: Any) -> LowRankUpdate:
        """See :meth:`Gaussian.restrict`. Builds the canonical form anew: O(D k^2)."""
        part = _tree.as_selection(self.mean, selection)
        return self._upon(self.base.restrict(part), _tree.like_selection(self._columns(), part))

    def _upon(self, base: Gaussian, columns: Params) -> LowRankUpdate:
        """``S S^T + C diag(lam) C^T`` for another root S and columns C."""
        basis, eigenvalues = canonical(jax.vmap(base.whiten)(columns), jnp.diag(self.eigenvalues))
        return LowRankUpdate(base, basis, eigenvalues)

    def condition(self, values: Params, selection: Any) -> LowRankUpdate:
        """See :meth:`Gaussian.condition`.

        With T the root of the base's conditional and E the selection's columns of the identity, ``A = T^T E^T S^-T``
        has orthonormal rows. With R = A Q, Z = Q - A^T R, G = Z^T Z and K = Lam (I + G Lam)^-1: mean that of the base's
        conditional plus ``T R K Z^T S^-1 r``, r the deviation of the rest; covariance ``T (I + R K R^T) T^T``.
        """
        part = _tree.as_selection(self.mean, selection)
        rest = _tree.complement(self.mean, part)
        if not jax.tree.leaves(rest):
            return self.restrict(part)
        base, zeros = self.base.condition(values, part), _tree.zeros_like(self.mean)
        root = transposed(base.unwhiten, part)
        inside = jax.vmap(lambda c: root(_tree.like_selection(c, part)))(self._precision_columns())

        def back(x: Params) -> Params:
            return self.base.whiten(_tree.merge(base.unwhiten(x), _tree.complement(zeros, part)))

        outside = _tree.sub(self.basis, jax.vmap(back)(inside))
        middle = middle_of_conditional(outside, self.eigenvalues)
        deviation = _tree.merge(_tree.sub(_tree.complement(values, part), rest), _tree.like_selection(zeros, part))
        along = _tree.columns_dot(outside, self.base.whiten(deviation))
        shift = _tree.columns_mv(inside, jnp.matmul(middle, along, precision=Precision.HIGHEST))
        basis, eigenvalues = canonical(inside, middle)
        return LowRankUpdate(base.around(_tree.add(base.mean, base.unwhiten(shift))), basis, eigenvalues)

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`."""
        along = jax.vmap(quadratic)(self._columns())
        return self.base.trace(diagonal, quadratic, dual) + jnp.sum(self.eigenvalues * along)

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`, and :meth:`LowRank.precision_trace` for what float32 keeps."""
        along = jax.vmap(quadratic)(self._precision_columns())
        less = jnp.sum(self.eigenvalues / (1 + self.eigenvalues) * along)
        return self.base.precision_trace(diagonal, quadratic) - less

    def realign(self, like: Params) -> LowRankUpdate:
        """See :meth:`Gaussian.realign`."""
        basis = _tree.restructure(_tree.by_paths(self.basis), like)
        return LowRankUpdate(self.base.realign(like), basis, self.eigenvalues)

    def __repr__(self) -> str:
        return f"LowRankUpdate({self.base!r}, rank={self.rank})"


def transposed(linear: Callable[[Params], Params], like: Params) -> Callable[[Params], Params]:
    """The transpose of a linear map from trees like ``like``."""
    transpose = jax.linear_transpose(linear, like)
    return lambda v: transpose(v)[0]
