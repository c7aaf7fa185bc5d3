"""The interface of every Gaussian over a parameter pytree."""

from __future__ import annotations

import abc
import math
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments, check_tree
from bayestl._types import Key, Params, Scalar, Selection
from bayestl.gaussians._matrices import Columns, Dual, KroneckerFactors, KroneckerPrecision
from bayestl.gaussians._matrix_layout import MatrixLayout
from bayestl.gaussians._storable import Storable


class Gaussian(Storable, abc.ABC):
    """A normal distribution over a parameter pytree. A source summary, a prior and a posterior are all one of these.

    ``log N(theta) = -1/2 [D log 2pi + log det Sigma + (theta - mu)^T Sigma^-1 (theta - mu)]``

    Subclasses are frozen pytrees, one per covariance structure, made by the functions of ``bayestl.gaussians``; no
    other room asks which one it has. Vectors ``v`` are pytrees with the structure of ``mean``; only ``dense`` forms
    anything of size D x D. The square root behind :meth:`whiten` and :meth:`unwhiten` is some S with
    ``S S^T = Sigma``; it need not be symmetric.
    """

    mean: Any
    """The mean mu, a pytree of floating-point arrays."""
    layout: MatrixLayout | None = None
    """How the parameters form the matrix of one layer, if the covariance is that of such a matrix."""

    # ------------------------------------------------------------ what every structure defines

    @abc.abstractmethod
    def precision_quadratic(self, v: Params) -> jax.Array:
        """``v^T Sigma^-1 v``, a scalar."""

    @abc.abstractmethod
    def log_det_covariance(self) -> jax.Array:
        """``log det Sigma``, a scalar."""

    @property
    @abc.abstractmethod
    def variance(self) -> Params:
        """Marginal variances, in the structure of ``mean``."""

    @abc.abstractmethod
    def precision_diagonal(self) -> Params:
        """The diagonal of ``Sigma^-1``, in the structure of ``mean``, in shapes that broadcast to its leaves."""

    @abc.abstractmethod
    def precision_mv(self, v: Params) -> Params:
        """``Sigma^-1 v``."""

    @abc.abstractmethod
    def covariance_mv(self, v: Params) -> Params:
        """``Sigma v``."""

    @abc.abstractmethod
    def whiten(self, v: Params) -> Params:
        """``S^-1 v``: deviations of this Gaussian become standard normal."""

    @abc.abstractmethod
    def unwhiten(self, v: Params) -> Params:
        """``S v``: standard normal noise becomes deviations of this Gaussian."""

    @abc.abstractmethod
    def around(self, mean: Params) -> Gaussian:
        """The same covariance around another mean, with the structure and shapes of ``mean``."""

    @abc.abstractmethod
    def rescale(self, c: Any) -> Gaussian:
        """``D Sigma D`` with D the square root of ``c`` > 0: a scalar, or a pytree in the structure of ``mean``.

        A leaf of ``c`` is one number for the whole leaf, or has any shape that broadcasts to it: (V, 1) gives each row
        of a (V, E) table its own factor. With one number c_l per leaf, the block of leaves l, m is multiplied by
        sqrt(c_l c_m).
        """

    @abc.abstractmethod
    def inflate(self, eps: Scalar) -> Gaussian:
        """``Sigma + eps I`` for a number ``eps`` >= 0."""

    @abc.abstractmethod
    def restrict(self, selection: Selection) -> Gaussian:
        """The marginal of a selection: path patterns, or the tree of ``mean`` with ``None`` at the leaves left out."""

    @abc.abstractmethod
    def condition(self, values: Params, selection: Selection) -> Gaussian:
        """The conditional of a selection, given that all other leaves are as in ``values``.

        Args:
            values: parameters; leaves inside the selection are ignored.
            selection: the leaves that stay random, as for :meth:`restrict`.
        """

    @abc.abstractmethod
    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """``tr(A Sigma)`` for a symmetric A given by its diagonal and by ``quadratic(v) = v^T A v``.

        Args:
            diagonal: that of A, in the structure of ``mean``; leaves have shapes that broadcast to its leaves.
            quadratic: ``v -> v^T A v``.
            dual: A given by its traces, for structures that would call ``quadratic`` once per parameter.
        """

    @abc.abstractmethod
    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """``tr(Sigma^-1 B)`` for a symmetric B given by its diagonal and by ``quadratic(v) = v^T B v``."""

    @property
    @abc.abstractmethod
    def num_directions(self) -> int:
        """How often :meth:`precision_trace` calls ``quadratic``."""

    @abc.abstractmethod
    def realign(self, like: Params) -> Gaussian:
        """The same distribution over the tree of ``like``: leaves are matched by path, ``None`` where there is none.

        Leaves whose paths ``like`` lacks must be removed with :meth:`restrict` first.
        """

    # ------------------------------------------------------------ independence

    def blocks(self) -> tuple[Gaussian, ...]:
        """The independent blocks, with nested ones flattened; just the Gaussian itself if it has only one."""
        return (self,)

    def independent_variances(self) -> Params | None:
        """The variances if all parameters are independent, in shapes that broadcast to those of ``mean``; else None."""
        return None

    def without_columns(self) -> tuple[Gaussian, Columns | None]:
        """A Gaussian with root S, and columns with ``Sigma = S (I + Q diag(lam) Q^T) S^T``; None for no columns."""
        return self, None

    # ------------------------------------------------------------ more precision

    def add_precision(self, columns: Params) -> Gaussian:
        """The Gaussian with the same mean and ``C C^T`` added to its precision: covariance ``(Sigma^-1 + C C^T)^-1``.

        What a Laplace approximation does to its prior, C then a square root of the curvature. A
        :class:`~bayestl.gaussians.LowRank` of rank k more on top of the same base, O(D k^2) beside what its root takes;
        a dense Gaussian stays dense. In float32 variances keep 3 digits where ``C C^T`` outweighs the prior by up to
        1e9: where the columns span all parameters, the base takes the scale of the smallest variance.

        Args:
            columns: C in the structure of ``mean``; every leaf has a leading axis, (k, *shape).

        Reference:
            The Woodbury identity in square-root form. With S S^T = Sigma, and s and U the singular values and left
            singular vectors of S^T C, the new square root is ``S (I + U (1 / sqrt(1 + s^2) - 1) U^T)``.

        Example:
            >>> g = btl.gaussians.isotropic({"w": jnp.zeros(2)}, scale=1.0)
            >>> print(g.add_precision({"w": jnp.array([[3.0, 0.0]])}).variance["w"].round(3))
            [0.1 1. ]
        """
        from bayestl.gaussians._on_top import on_top  # which builds a Gaussian

        return on_top(self, columns)

    def log_det_ratio(self, columns: Params) -> jax.Array:
        """``log det (I + Sigma C C^T)``: by how much :meth:`add_precision` lowers ``log det Sigma``, a scalar >= 0.

        Through the singular values of ``S^T C``, not as a difference of two log determinants, which float32 could not
        resolve, nor through their squares.
        """
        from bayestl.gaussians._on_top import log_det_ratio

        return log_det_ratio(self, columns)

    def add_diagonal_precision(self, diagonal: Params) -> Gaussian:
        """The Gaussian with the same mean and structure, and ``diag(h)`` added to its precision.

        This is what a Laplace approximation with diagonal curvature does to its prior. It is exact.

        Args:
            diagonal: h >= 0, in the structure of ``mean``.

        Raises:
            TypeError: a structure for which the result has no closed form.

        Example:
            >>> g = btl.gaussians.isotropic({"w": jnp.zeros(2)}, scale=1.0)
            >>> print(g.add_diagonal_precision({"w": jnp.array([3.0, 0.0])}).variance["w"])
            [0.25 1.  ]
        """
        raise TypeError(self._no_diagonal_precision())

    def diagonal_log_det_ratio(self, diagonal: Params) -> jax.Array:
        """``log det (I + Sigma diag(h))``: by how much :meth:`add_diagonal_precision` lowers ``log det Sigma``.

        Raises:
            TypeError: a structure for which it has no closed form.
        """
        raise TypeError(self._no_diagonal_precision())

    def _no_diagonal_precision(self) -> str:
        return (
            f"diagonal precision on top of a {type(self).__name__} Gaussian has no closed form; give it a diagonal, "
            "low-rank or dense prior, or these by path"
        )

    def add_kronecker_precision(self, precision: KroneckerPrecision) -> Gaussian:
        """The Gaussian with the same mean and a Kronecker product per layer added to its precision.

        What a Laplace approximation with Kronecker-factored curvature does to its prior: a
        :class:`~bayestl.gaussians.Kronecker` for every layer, below the columns of a low-rank prior. Exact where the
        prior has one variance per row of a layer. Where it is such a posterior itself, one basis must hold both: exact
        if they share their eigenvectors, else the nearest in that basis, see :meth:`after_factors`.

        Raises:
            ValueError: a Gaussian that, but for a low-rank part, correlates a layer otherwise, or has more than one
                variance in a row of its matrix.
        """
        from bayestl.gaussians._kronecker_precision import add

        return add(self, precision)

    def after_factors(self, factors: KroneckerFactors) -> tuple[Gaussian, jax.Array] | None:
        """What :meth:`add_kronecker_precision` makes of a structure that is a layer's own, and by how much it lowers
        ``log det Sigma``; None for all others."""
        return None

    def kronecker_log_det_ratio(self, precision: KroneckerPrecision) -> jax.Array:
        """``log det (I + Sigma H)``, H the precision: by how much :meth:`add_kronecker_precision` lowers
        ``log det Sigma``.

        Raises:
            ValueError: as :meth:`add_kronecker_precision`.
        """
        from bayestl.gaussians._kronecker_precision import log_det_ratio

        return log_det_ratio(self, precision)

    def covariance_of_products(self, inputs: jax.Array, gradients: jax.Array) -> jax.Array:
        """``Cov(tr(J_f^T M), tr(J_h^T M))`` for the matrix M of ``layout``, J_f the sum over positions of ``a g_f^T``.

        Args:
            inputs: a, (B, P, g, I), without the constant 1 of a bias: B examples, P positions, g groups.
            gradients: g_f, (F, B, P, g, O).

        Returns:
            (B, F, F). Defined where ``layout`` is.
        """
        raise NotImplementedError(f"the parameters of a {type(self).__name__} do not form a matrix")

    def covariance_of_rows(self, rows: jax.Array, gradients: jax.Array) -> jax.Array:
        """The same for a table, whose V rows are the groups of ``layout`` and share one basis.

        Args:
            rows: which row a position looks up, (B, P); V for none.
            gradients: of the outputs with respect to these rows, (F, B, P, O); a row that an example looks up several
                times has its whole gradient at one of the positions.

        Returns:
            (B, F, F). Defined where ``layout`` is.
        """
        raise NotImplementedError(f"the parameters of a {type(self).__name__} do not form a table")

    # ------------------------------------------------------------ densities and draws

    def squared_mahalanobis(self, params: Params) -> jax.Array:
        """``(theta - mu)^T Sigma^-1 (theta - mu)``, a scalar: the part of the log density that an optimizer needs."""
        check_tree("params", params)
        _tree.check_same_structure("params", params, "the Gaussian", self.mean, "give parameters like its mean")
        return self.precision_quadratic(_tree.sub(params, self.mean))

    def log_prob(self, params: Params) -> jax.Array:
        """Log density at ``params`` in nats, a scalar."""
        check_arguments(Gaussian.log_prob, locals())
        constant = _tree.size(self.mean) * math.log(2 * math.pi) + self.log_det_covariance()
        return -0.5 * (constant + self.squared_mahalanobis(params))

    def sample(self, key: Key, num_samples: int) -> Params:
        """``num_samples`` independent draws; leaves have a leading axis of that length."""
        check_arguments(Gaussian.sample, locals())
        noise = _tree.normal_like(key, self.mean, num_samples)
        return jax.tree.map(jnp.add, self.mean, jax.vmap(self.unwhiten)(noise))

    def __repr__(self) -> str:
        names = _tree.paths(self.mean)
        return f"{type(self).__name__}(D={_tree.size(self.mean)}, paths=[{_tree.shown(names, 4)}])"
