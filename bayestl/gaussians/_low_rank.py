"""Gaussians with a low-rank change of their covariance, in a canonical form that is numerically stable in float32."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params, Scalar, Selection
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._canonical import canonical
from bayestl.gaussians._diagonal import Diagonal
from bayestl.gaussians._matrices import Columns, Dual
from bayestl.gaussians._roots import root_of
from bayestl.gaussians._storable import Parameter, Shape, Shapes, Stored, check_settings
from bayestl.gaussians._validate import checked_factor, checked_mean, checked_variances
from bayestl.gaussians._white import above_minus_one, along, check_columns, quadratic

_MOST_RANK = 4096


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class LowRank(Gaussian, kind="low_rank"):
    """A low-rank change of another Gaussian: ``Sigma = S (I + Q diag(lam) Q^T) S^T``, Q^T Q = I, lam > -1.

    S is the root of ``base``, the one behind its ``unwhiten``. :func:`low_rank` makes one on top of a diagonal,
    ``S = a^1/2``. The form is closed: a Laplace posterior with low-rank curvature under such a prior has this type
    again, with negative lam, and so does one with Kronecker-factored curvature, on top of a Kronecker-factored base.
    It stores k copies of the parameters beside the base, and every query takes O(D k) beside the base's own cost.

    Attributes:
        base: a Gaussian of any structure, whose mean is the mean.
        basis: Q, leaves (k, *shape), orthonormal columns (a zero column where the factor was singular), in the
            coordinates that ``base`` whitens to.
        eigenvalues: lam, (k,).
        remaining: 1 + lam, (k,), of a posterior: where the data outweigh the prior by far, lam is -1 up to rounding.
            None where lam says it all.
    """

    base: Gaussian
    basis: Any
    eigenvalues: Any
    remaining: Any = None

    num_parts: ClassVar[int | None] = 1

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
    def columns(self) -> Columns:
        """``I + Q diag(lam) Q^T``."""
        return Columns(self.basis, self.eigenvalues, self.remaining)

    def without_columns(self) -> tuple[Gaussian, Columns]:
        """See :meth:`Gaussian.without_columns`."""
        return self.base, self.columns

    def precision_quadratic(self, v: Params) -> jax.Array:
        """See :meth:`Gaussian.precision_quadratic`."""
        return quadratic(self.columns, self.base.whiten(v))

    def log_det_covariance(self) -> jax.Array:
        """See :meth:`Gaussian.log_det_covariance`."""
        each = jnp.log1p(self.eigenvalues) if self.remaining is None else jnp.log(self.remaining)
        return self.base.log_det_covariance() + jnp.sum(each)

    @property
    def variance(self) -> Params:
        """See :meth:`Gaussian.variance`."""
        return root_of(self.base).variance(self.columns)

    def precision_diagonal(self) -> Params:
        """See :meth:`Gaussian.precision_diagonal`."""
        return root_of(self.base).precision_diagonal(self.columns)

    def precision_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.precision_mv`."""
        inside = along(self.columns, self.base.whiten(v), _inverse)
        return root_of(self.base).whiten_transposed(inside)

    def covariance_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.covariance_mv`."""
        return self.base.unwhiten(along(self.columns, root_of(self.base).unwhiten_transposed(v), _itself))

    def whiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.whiten`."""
        return along(self.columns, self.base.whiten(v), _inverse_root)

    def unwhiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.unwhiten`."""
        return self.base.unwhiten(along(self.columns, v, _root))

    def around(self, mean: Params) -> LowRank:
        """See :meth:`Gaussian.around`."""
        return dataclasses.replace(self, base=self.base.around(mean))

    def rescale(self, c: Any) -> LowRank:
        """See :meth:`Gaussian.rescale`. Changes only the base, whose root the factors multiply from the left."""
        return dataclasses.replace(self, base=self.base.rescale(c))

    def inflate(self, eps: Scalar) -> LowRank:
        """See :meth:`Gaussian.inflate`. Rebuilds the canonical form: O(D k^2)."""
        base, columns = root_of(self.base).inflated(self.columns, eps)
        return LowRank(base, *canonical(columns, jnp.diag(self.eigenvalues)))

    def restrict(self, selection: Selection) -> LowRank:
        """See :meth:`Gaussian.restrict`. Rebuilds the canonical form: O(D k^2)."""
        base, columns = root_of(self.base).restricted(self.columns, _tree.as_selection(self.mean, selection))
        return LowRank(base, *canonical(columns, jnp.diag(self.eigenvalues)))

    def condition(self, values: Params, selection: Selection) -> LowRank:
        """See :meth:`Gaussian.condition`.

        Let R and Z be the parts of the columns inside and outside the selection, T the root of the base's conditional,
        r the deviation of the rest, G = Z^T Z and K = Lam (I + G Lam)^-1. The mean is that of the base's conditional
        plus ``T R K Z^T S^-1 r``; the covariance is ``T (I + R K R^T) T^T``.
        """
        check_arguments(LowRank.condition, locals())
        part = _tree.as_selection(self.mean, selection)
        rest = _tree.complement(self.mean, part)
        if not jax.tree.leaves(rest):
            return self.restrict(part)
        base, inside, outside, toward = root_of(self.base).divided(self.columns, values, part, rest)
        middle = _middle(_tree.columns_gram(outside, outside), self.eigenvalues)
        shift = _tree.columns_mv(inside, jnp.matmul(middle, toward, precision=Precision.HIGHEST))
        moved = base.around(_tree.add(base.mean, base.unwhiten(shift)))
        return LowRank(moved, *canonical(inside, middle))

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`."""
        each = jax.vmap(quadratic)(root_of(self.base).columns(self.columns))
        return self.base.trace(diagonal, quadratic, dual) + jnp.sum(self.eigenvalues * each)

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`.

        ``tr(S^-T S^-1 B) - sum_j lam_j / (1 + lam_j) c_j^T B c_j``, c = S^-T Q. Where B is much larger than the base
        along Q, the two sums cancel: in float32 the error is 1e-7 of B over a. In a divergence of a posterior from its
        prior that does not happen, since the posterior's base is at most as large as the prior's.
        """
        each = jax.vmap(quadratic)(root_of(self.base).precision_columns(self.columns))
        less = jnp.sum((1 - 1 / self.columns.ratios) * each)
        return self.base.precision_trace(diagonal, quadratic) - less

    def realign(self, like: Params) -> LowRank:
        """See :meth:`Gaussian.realign`."""
        basis = _tree.restructure(_tree.by_paths(self.basis), like)
        return dataclasses.replace(self, base=self.base.realign(like), basis=basis)

    def add_diagonal_precision(self, diagonal: Params) -> LowRank:
        """See :meth:`Gaussian.add_diagonal_precision`.

        With T the root of the base with the added precision, the columns are ``T^T S^-T Q``, and the matrix between
        them is ``Lam (I + M Lam)^-1``, where M is the added precision along the columns.
        """
        base, columns, gram = root_of(self.base).measured(self.columns, diagonal)
        basis, eigenvalues = canonical(columns, _middle(gram, self.eigenvalues))
        return LowRank(base, basis, above_minus_one(eigenvalues))

    def diagonal_log_det_ratio(self, diagonal: Params) -> jax.Array:
        """See :meth:`Gaussian.diagonal_log_det_ratio`."""
        gram = root_of(self.base).measured(self.columns, diagonal).gram
        return self.base.diagonal_log_det_ratio(diagonal) + jnp.linalg.slogdet(_inner(gram, self.eigenvalues))[1]

    def stored(self) -> Stored:
        """See :meth:`Gaussian.stored`."""
        arrays, settings = {"eigenvalues": self.eigenvalues}, {"rank": self.rank}
        if self.remaining is not None:
            arrays, settings = arrays | {"remaining": self.remaining}, settings | {"remaining": True}
        return Stored({"basis": self.basis}, arrays, settings, (self.base,))

    @classmethod
    def stored_shapes(cls, settings: Mapping[str, Any], parameters: Sequence[Parameter]) -> Shapes:
        """See :meth:`Gaussian.stored_shapes`."""
        check_settings(settings, {"rank"} | ({"remaining"} & set(settings)))
        rank = settings["rank"]
        if type(rank) is not int or rank <= 0:
            raise ValueError(f"rank {rank!r} is not a positive integer")
        numbers = sum(math.prod(p.shape) for p in parameters)
        if rank > max(numbers, _MOST_RANK):  # the Gram matrix of such columns takes more memory than the columns
            raise ValueError(f"rank {rank:,} over {numbers:,} numbers; a Gaussian has no more directions than numbers")
        if settings.get("remaining", True) is not True:
            raise ValueError(f"remaining is {settings['remaining']!r}: true, or left out")
        arrays = ["eigenvalues", *(["remaining"] if "remaining" in settings else [])]
        trees = {"basis": {p.path: Shape((rank, *p.shape)) for p in parameters}}
        return Shapes(trees, {name: Shape((rank,)) for name in arrays})

    @classmethod
    def from_stored(cls, stored: Stored) -> LowRank:
        """See :meth:`Gaussian.from_stored`."""
        return LowRank(stored.parts[0], stored.trees["basis"], **stored.arrays)

    def check_values(self) -> None:
        """See :meth:`Gaussian.check_values`."""
        check_columns(self.columns)
        if self.remaining is not None:
            _tree.check_positive("remaining", self.remaining)
            off = float(jnp.max(jnp.abs(self.remaining - 1 - self.eigenvalues) / (1 + jnp.abs(self.eigenvalues))))
            if off > float(jnp.finfo(self.eigenvalues.dtype).eps) ** 0.5:
                raise ValueError(f"remaining is not 1 + eigenvalues: off by {off:.3g}")

    def __repr__(self) -> str:
        return f"LowRank({self.base!r}, rank={self.rank})"


def _inverse(ratios: jax.Array) -> jax.Array:
    return 1 / ratios - 1


def _itself(ratios: jax.Array) -> jax.Array:
    return ratios - 1


def _root(ratios: jax.Array) -> jax.Array:
    return jnp.sqrt(ratios) - 1


def _inverse_root(ratios: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(ratios) - 1


def _middle(gram: jax.Array, eigenvalues: jax.Array) -> jax.Array:
    """``K = Lam (I + G Lam)^-1``, symmetric, with G the Gram matrix of the parts removed from the columns.

    The Gram matrix of the parts that remain would need a difference of large numbers.
    """
    middle = jnp.linalg.solve(_inner(gram, eigenvalues), jnp.diag(eigenvalues))
    return 0.5 * (middle + middle.T)


def _inner(gram: jax.Array, eigenvalues: jax.Array) -> jax.Array:
    return jnp.eye(len(gram), dtype=gram.dtype) + eigenvalues[:, None] * gram


def low_rank(mean: Params, diagonal: Scalar | Params, factor: Params) -> LowRank:
    """A Gaussian with covariance ``diag(diagonal) + factor^T factor``, converted to canonical form once, in O(D k^2).

    Gradients of its densities, draws, variances and products in ``diagonal`` and ``factor`` are exact. Those of
    ``precision_diagonal`` and of divergences need distinct eigenvalues, which random factors have and orthogonal rows
    of equal length have not.

    Args:
        mean: pytree of floating-point arrays.
        diagonal: variances a > 0 of the diagonal part: one number, or the structure of ``mean`` with leaves that
            broadcast to its leaves, as for :func:`diagonal`.
        factor: in the structure of ``mean``; every leaf has a leading rank axis, (k, *shape), k >= 1.

    Raises:
        ValueError: structures or shapes that differ, rank 0, a rank above the number of parameters, non-finite values,
            variances that are not positive.

    Reference:
        The form follows from the eigendecomposition of the Gram matrix of ``a^-1/2 factor``. For the origin of such
        factors see Maddox et al. 2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning", section 3.2.

    Example:
        >>> g = btl.gaussians.low_rank({"w": jnp.zeros(3)}, 1.0, {"w": jnp.ones((1, 3))})
        >>> print(g.covariance_mv({"w": jnp.array([1.0, 0.0, 0.0])})["w"].round(4))
        [2. 1. 1.]
    """
    check_arguments(low_rank, locals())
    mean = checked_mean(mean)
    factor, rank = checked_factor(factor, mean)
    if rank > _tree.size(mean):
        raise ValueError(
            f"factor has rank {rank}, but there are only {_tree.size(mean)} parameters; use gaussians.dense, or fewer "
            "rows"
        )
    diagonal = checked_variances(
        "diagonal", diagonal, mean, "a variance of 0 is an infinitely sharp prior: add a floor eps > 0"
    )
    columns = jax.tree.map(lambda f, a: f * jax.lax.rsqrt(a), factor, diagonal)
    basis, eigenvalues = canonical(columns, jnp.eye(rank))
    # Rounding must not make the eigenvalues of a sum of squares negative.
    return LowRank(Diagonal(mean, diagonal), basis, jnp.maximum(eigenvalues, 0))
