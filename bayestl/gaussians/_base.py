"""What every Gaussian over a parameter pytree offers."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Key, Params, Scalar


class Dual(NamedTuple):
    """A symmetric matrix A by the traces that it has with others: the other way to ``tr(A B)``.

    Attributes:
        trace: ``(diagonal, quadratic) -> tr(A B)`` for a symmetric B known by its diagonal and by
            ``quadratic(v) = v^T B v``.
        num_directions: how often that asks for ``quadratic``.
    """

    trace: Callable[[Params, Any], jax.Array]
    num_directions: int


class Gaussian(abc.ABC):
    """A normal distribution over a parameter pytree. A source summary, a prior and a posterior are all one of these.

    ``log N(theta) = -1/2 [D log 2pi + log det Sigma + (theta - mu)^T Sigma^-1 (theta - mu)]``

    Subclasses are frozen pytrees, one per covariance structure, made by the functions of ``bayestl.gaussians``. Vectors
    ``v`` are pytrees with the structure of ``mean``; nothing of size D x D is formed except by ``dense``. The square
    root behind :meth:`whiten` and :meth:`unwhiten` is some S with ``S S^T = Sigma``; it need not be symmetric.
    """

    mean: Any
    """The mean mu, a pytree of floating-point arrays."""

    @abc.abstractmethod
    def precision_quadratic(self, v: Params) -> jax.Array:
        """``v^T Sigma^-1 v``, a scalar."""

    @abc.abstractmethod
    def log_det_covariance(self) -> jax.Array:
        """``log det Sigma``, a scalar."""

    @abc.abstractmethod
    def variance(self) -> Params:
        """Marginal variances, in the structure of ``mean``."""

    @abc.abstractmethod
    def precision_diagonal(self) -> Params:
        """The diagonal of ``Sigma^-1``, in the structure of ``mean``."""

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
        """The same covariance around another mean, a tree like the one there is."""

    @abc.abstractmethod
    def rescale(self, c: Any) -> Gaussian:
        """The covariance times ``c`` > 0: a scalar, or a pytree of one number per leaf of ``mean``.

        With one number c_l per leaf the block of leaves l, m is multiplied by sqrt(c_l c_m).
        """

    @abc.abstractmethod
    def inflate(self, eps: Scalar) -> Gaussian:
        """``Sigma + eps I``."""

    @abc.abstractmethod
    def restrict(self, selection: Any) -> Gaussian:
        """The marginal of a selection: path patterns, or the tree of ``mean`` with ``None`` at the leaves left out."""

    @abc.abstractmethod
    def condition(self, values: Params, selection: Any) -> Gaussian:
        """The conditional of a selection, given that all other leaves are as in ``values``.

        Args:
            values: parameters; leaves inside the selection are ignored.
            selection: the leaves that stay random, as for :meth:`restrict`.
        """

    @abc.abstractmethod
    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """``tr(A Sigma)`` for a symmetric A known by its diagonal and by ``quadratic(v) = v^T A v``.

        Args:
            diagonal: of A, in the structure of ``mean``.
            quadratic: of A.
            dual: A from its other side, for structures that would ask for ``quadratic`` once per parameter.
        """

    @abc.abstractmethod
    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """``tr(Sigma^-1 B)`` for a symmetric B known by its diagonal and by ``quadratic(v) = v^T B v``."""

    @property
    @abc.abstractmethod
    def num_directions(self) -> int:
        """How often :meth:`precision_trace` asks for ``quadratic``."""

    @abc.abstractmethod
    def realign(self, like: Params) -> Gaussian:
        """The same distribution over the tree of ``like``: leaves are found by path, ``None`` where there is none.

        Leaves of this Gaussian whose paths ``like`` lacks must have been taken out with :meth:`restrict` before.
        """

    def squared_mahalanobis(self, params: Params) -> jax.Array:
        """``(theta - mu)^T Sigma^-1 (theta - mu)``, a scalar: all of the log density that an optimizer needs."""
        return self.precision_quadratic(_tree.sub(params, self.mean))

    def log_prob(self, params: Params) -> jax.Array:
        """Log density at ``params`` in nats, a scalar."""
        constant = _tree.size(self.mean) * math.log(2 * math.pi) + self.log_det_covariance()
        return -0.5 * (constant + self.squared_mahalanobis(params))

    def sample(self, key: Key, num: int) -> Params:
        """``num`` independent draws; leaves have a leading axis of that length."""
        noise = _tree.normal_like(key, self.mean, num)
        return jax.tree.map(jnp.add, self.mean, jax.vmap(self.unwhiten)(noise))

    def __repr__(self) -> str:
        names = _tree.paths(self.mean)
        return f"{type(self).__name__}(D={_tree.size(self.mean)}, paths=[{_tree.shown(names, 4)}])"


def leafwise(c: Any, like: Params, name: str = "c") -> Params:
    """``c`` > 0 as one number per leaf of ``like``: a number is repeated, a tree of numbers is checked.

    Raises:
        ValueError: a tree that differs from ``like``, a leaf that is not a single number, or one that is not positive.
    """
    fix = "give a scalar, or one number per leaf"
    if jax.tree.structure(c) == jax.tree.structure(0):
        if jnp.ndim(c) != 0:
            raise ValueError(f"{name} has shape {jnp.shape(c)}; {fix}")
        _tree.check_positive(name, c, f"{name} must be positive")
        return jax.tree.map(lambda _: c, like)
    marks = jax.tree.map(lambda _: 0.0, like)
    _tree.check_same_structure(name, c, "the leaves of mean", marks, fix)
    _tree.check_positive(name, c, f"{name} must be positive")
    return c
