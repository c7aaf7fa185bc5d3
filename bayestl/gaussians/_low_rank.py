"""Gaussians whose covariance is low rank plus diagonal, in a canonical form that float32 can bear."""

from __future__ import annotations

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._types import Params, Scalar
from bayestl.gaussians._base import Dual, Gaussian, leafwise
from bayestl.gaussians._canonical import canonical
from bayestl.gaussians._diagonal import log_det_diagonal
from bayestl.gaussians._validate import checked_factor, checked_mean, checked_variances


@jax.custom_jvp
def _quadratic(r: Params, diagonal: Params, basis: Params, eigenvalues: jax.Array) -> jax.Array:
    """``r^T Sigma^-1 r`` as ``|u|^2 + sum lam (Q^T rho / (1 + lam))^2``, rho = a^-1/2 r, u = a^1/2 Sigma^-1 r.

    For lam >= 0 a sum of positive terms: nothing cancels, where Woodbury's ``|rho|^2 - ...`` is off by factors in
    float32. Two passes over the k columns of Q, which are what the memory has to move, give the gradient too.
    """
    return _quadratic_and_whitened(r, diagonal, basis, eigenvalues)[0]


def _quadratic_and_whitened(r, diagonal, basis, eigenvalues):
    rho = jax.tree.map(lambda x, a: x * jax.lax.rsqrt(a), r, diagonal)
    inside = _tree.columns_dot(basis, rho)
    u = _tree.sub(rho, _tree.columns_mv(basis, eigenvalues / (1 + eigenvalues) * inside))
    value = _tree.squared_norm(u) + jnp.sum(eigenvalues * (inside / (1 + eigenvalues)) ** 2)
    return value, rho, inside, u


def _is_zero(tangent: Any) -> bool:
    leaves = jax.tree.leaves(tangent, is_leaf=lambda x: isinstance(x, jax.custom_derivatives.SymbolicZero))
    return all(isinstance(x, jax.custom_derivatives.SymbolicZero) for x in leaves)


def _quadratic_jvp(primals, tangents):
    # By hand: reverse mode would pass over the k columns twice more to learn that the gradient is 2 Sigma^-1 r.
    r, diagonal, basis, eigenvalues = primals
    value, rho, inside, u = _quadratic_and_whitened(r, diagonal, basis, eigenvalues)
    dr, d_diagonal, d_basis, d_eigenvalues = (_instantiate(t, p) for t, p in zip(tangents, primals, strict=True))
    out = jnp.zeros_like(value)
    if dr is not None:
        out += 2 * _tree.vdot(jax.tree.map(lambda x, a: x * jax.lax.rsqrt(a), u, diagonal), dr)
    if d_diagonal is not None:
        per_leaf = jax.tree.map(lambda x, h, a, d: jnp.sum(x * h * (d / a)), u, rho, diagonal, d_diagonal)
        out -= _tree.total(jax.tree.leaves(per_leaf))
    if d_basis is not None:
        out -= 2 * jnp.sum(eigenvalues / (1 + eigenvalues) * inside * _tree.columns_dot(d_basis, rho))
    if d_eigenvalues is not None:
        out -= jnp.sum((inside / (1 + eigenvalues)) ** 2 * d_eigenvalues)
    return value, out


def _instantiate(tangent: Any, primal: Any) -> Any:
    """None for a tangent known to be zero, else the tangent with its zero leaves filled in."""
    if _is_zero(tangent):
        return None
    return jax.tree.map(
        lambda t, p: jnp.zeros_like(p) if isinstance(t, jax.custom_derivatives.SymbolicZero) else t,
        tangent,
        primal,
        is_leaf=lambda x: isinstance(x, jax.custom_derivatives.SymbolicZero),
    )


_quadratic.defjvp(_quadratic_jvp, symbolic_zeros=True)


def squared_mv(columns: Params, weights: jax.Array) -> Params:
    """``sum_j w_j c_j^2``, (*shape) per leaf.

    A few columns at a time: a product would first store all k squares, and so do, unseen, some CPU kernels for a sum.
    """

    def leaf(c: jax.Array) -> jax.Array:
        def add(total: jax.Array, column: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            weight, values = column
            return total + weight * values * values, None

        columns_and_weights = (weights.astype(c.dtype), c)
        return jax.lax.scan(add, jnp.zeros(c.shape[1:], c.dtype), columns_and_weights, unroll=min(len(c), 2))[0]

    return jax.tree.map(leaf, columns)


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class LowRank(Gaussian):
    """Low rank plus diagonal: ``Sigma = a^1/2 (I + Q diag(lam) Q^T) a^1/2``, Q^T Q = I, lam > -1.

    Made by :func:`low_rank`. The form is closed: a Laplace posterior with low-rank curvature under such a prior is of
    this type again, then with negative lam. Every query costs O(D k) time, storage is k + 2 copies of the parameters.

    Attributes:
        mean: pytree of means.
        diagonal: a, in the structure of ``mean``; a leaf may be one number for all of that leaf.
        basis: Q, leaves (k, *shape), orthonormal columns (a zero column where the factor was singular).
        eigenvalues: lam, (k,).
    """

    mean: Any
    diagonal: Any
    basis: Any
    eigenvalues: Any

    @property
    def rank(self) -> int:
        """The number of columns k."""
        return self.eigenvalues.shape[-1]

    def _scaled(self, v: Params, power: float) -> Params:
        return jax.tree.map(lambda x, a: x * a**power, v, self.diagonal)

    def _along(self, v: Params, weights: jax.Array) -> Params:
        """``(I + Q diag(weights) Q^T) v``."""
        return _tree.add(v, _tree.columns_mv(self.basis, weights * _tree.columns_dot(self.basis, v)))

    def precision_quadratic(self, v: Params) -> jax.Array:
        """See :meth:`Gaussian.precision_quadratic`."""
        return _quadratic(v, self.diagonal, self.basis, self.eigenvalues)

    def log_det_covariance(self) -> jax.Array:
        """See :meth:`Gaussian.log_det_covariance`."""
        return log_det_diagonal(self.diagonal, self.mean) + jnp.sum(jnp.log1p(self.eigenvalues))

    def variance(self) -> Params:
        """See :meth:`Gaussian.variance`."""
        along = squared_mv(self.basis, self.eigenvalues)
        return jax.tree.map(lambda a, s: a * (1 + s), self.diagonal, along)

    def precision_diagonal(self) -> Params:
        """See :meth:`Gaussian.precision_diagonal`."""
        inside = squared_mv(self.basis, 1 / (1 + self.eigenvalues))
        length = squared_mv(self.basis, jnp.ones_like(self.eigenvalues))
        # 1 - sum q^2 is a squared length, which rounding may leave below zero.
        return jax.tree.map(lambda a, i, s: (jnp.maximum(1 - s, 0) + i) / a, self.diagonal, inside, length)

    def precision_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.precision_mv`."""
        weights = -self.eigenvalues / (1 + self.eigenvalues)
        return self._scaled(self._along(self._scaled(v, -0.5), weights), -0.5)

    def covariance_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.covariance_mv`."""
        return self._scaled(self._along(self._scaled(v, 0.5), self.eigenvalues), 0.5)

    def whiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.whiten`."""
        return self._along(self._scaled(v, -0.5), jax.lax.rsqrt(1 + self.eigenvalues) - 1)

    def unwhiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.unwhiten`."""
        return self._scaled(self._along(v, jnp.sqrt(1 + self.eigenvalues) - 1), 0.5)

    def around(self, mean: Params) -> LowRank:
        """See :meth:`Gaussian.around`."""
        return dataclasses.replace(self, mean=mean)

    def rescale(self, c: Any) -> LowRank:
        """See :meth:`Gaussian.rescale`. Touches the diagonal part alone."""
        diagonal = jax.tree.map(jnp.multiply, self.diagonal, leafwise(c, self.mean))
        return dataclasses.replace(self, diagonal=diagonal)

    def inflate(self, eps: Scalar) -> LowRank:
        """See :meth:`Gaussian.inflate`. Builds the canonical form anew: O(D k^2)."""
        diagonal = jax.tree.map(lambda a: a + eps, self.diagonal)
        columns = jax.tree.map(lambda q, a, b: q * jnp.sqrt(a / b), self.basis, self.diagonal, diagonal)
        basis, eigenvalues = canonical(columns, jnp.diag(self.eigenvalues))
        return LowRank(self.mean, diagonal, basis, eigenvalues)

    def restrict(self, selection: Any) -> LowRank:
        """See :meth:`Gaussian.restrict`. Builds the canonical form anew: O(D k^2)."""
        return self._part(_tree.as_selection(self.mean, selection), jnp.diag(self.eigenvalues))

    def condition(self, values: Params, selection: Any) -> LowRank:
        """See :meth:`Gaussian.condition`.

        With rows S of the selection and R of the rest, G = Q_R^T Q_R and K = Lam (I + G Lam)^-1: mean
        ``mu_S + a_S^1/2 Q_S K Q_R^T a_R^-1/2 (theta_R - mu_R)``, covariance ``a_S^1/2 (I + Q_S K Q_S^T) a_S^1/2``.
        """
        part = _tree.as_selection(self.mean, selection)
        if not jax.tree.leaves(_tree.complement(self.mean, part)):
            return self.restrict(part)
        rest, basis, diagonal = (_tree.complement(x, part) for x in (self.mean, self.basis, self.diagonal))
        deviation = _tree.sub(_tree.complement(values, part), rest)
        deviation = jax.tree.map(lambda x, a: x * jax.lax.rsqrt(a), deviation, diagonal)
        middle = middle_of_conditional(basis, self.eigenvalues)
        weights = jnp.matmul(middle, _tree.columns_dot(basis, deviation), precision=Precision.HIGHEST)
        result = self._part(part, middle)
        shift = _tree.columns_mv(_tree.like_selection(self.basis, part), weights)
        mean = jax.tree.map(lambda m, s, a: m + s * jnp.sqrt(a), result.mean, shift, result.diagonal)
        return dataclasses.replace(result, mean=mean)

    def _part(self, part: Params, middle: jax.Array) -> LowRank:
        basis, eigenvalues = canonical(_tree.like_selection(self.basis, part), middle)
        return LowRank(part, _tree.like_selection(self.diagonal, part), basis, eigenvalues)

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`."""
        columns = jax.tree.map(lambda q, a: q * jnp.sqrt(a), self.basis, self.diagonal)
        return _tree.vdot(diagonal, self.diagonal) + jnp.sum(self.eigenvalues * jax.vmap(quadratic)(columns))

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`.

        ``sum b / a - sum_j lam_j / (1 + lam_j) c_j^T B c_j``, c = a^-1/2 Q. Where B is much larger than a along Q, the
        second sum takes away what the first has: in float32 the error is 1e-7 of B over a. The base of a posterior,
        which is what meets this in a divergence from its prior, is at most a.
        """
        columns = jax.tree.map(lambda q, a: q * jax.lax.rsqrt(a), self.basis, self.diagonal)
        all_of_it = _tree.total(jax.tree.leaves(jax.tree.map(lambda b, a: jnp.sum(b / a), diagonal, self.diagonal)))
        return all_of_it - jnp.sum(self.eigenvalues / (1 + self.eigenvalues) * jax.vmap(quadratic)(columns))

    @property
    def num_directions(self) -> int:
        """See :attr:`Gaussian.num_directions`."""
        return self.rank

    def realign(self, like: Params) -> LowRank:
        """See :meth:`Gaussian.realign`."""
        parts = (self.mean, self.diagonal, self.basis)
        mean, diagonal, basis = (_tree.restructure(_tree.by_paths(part), like) for part in parts)
        return LowRank(mean, diagonal, basis, self.eigenvalues)


def middle_of_conditional(outside: Params, eigenvalues: jax.Array) -> jax.Array:
    """``K = Lam (I + G Lam)^-1``, symmetric, with G the Gram matrix of what the columns have outside.

    That the conditional has from the whole: no difference of large numbers, as with the Gram matrix of what is inside.
    """
    gram = _tree.columns_gram(outside, outside)
    inner = jnp.eye(len(gram), dtype=gram.dtype) + eigenvalues[:, None] * gram
    middle = jnp.linalg.solve(inner, jnp.diag(eigenvalues))
    return 0.5 * (middle + middle.T)


def low_rank(mean: Params, diagonal: Any, factor: Params) -> LowRank:
    """A Gaussian with covariance ``diag(diagonal) + factor^T factor``, brought to canonical form once, O(D k^2).

    Gradients with respect to ``diagonal`` and ``factor`` need distinct eigenvalues, which random factors have and
    orthogonal rows of equal length have not; those with respect to a scale that multiplies both are always exact.

    Args:
        mean: pytree of floating-point arrays.
        diagonal: variances a > 0 of the diagonal part, in the structure of ``mean``; a leaf, or all of it, may be one
            number.
        factor: in the structure of ``mean``; every leaf has a leading rank axis, (k, *shape), k >= 1.

    Raises:
        ValueError: structures or shapes that differ, rank 0, more rank than parameters, non-finite values, variances
            that are not positive.

    Reference:
        The form follows from the eigendecomposition of the Gram matrix of ``a^-1/2 factor``; compare Maddox et al.
        2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning", section 3.2, for where such factors come
        from.

    Example:
        >>> g = btl.gaussians.low_rank({"w": jnp.zeros(3)}, 1.0, {"w": jnp.ones((1, 3))})
        >>> print(g.covariance_mv({"w": jnp.array([1.0, 0.0, 0.0])})["w"].round(4))
        [2. 1. 1.]
    """
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
    # Rounding must not take the eigenvalues of a sum of squares below zero.
    return LowRank(mean, diagonal, basis, jnp.maximum(eigenvalues, 0))
