"""Gaussians with independent parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, final

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params, Scalar, Selection
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._matrices import Dual
from bayestl.gaussians._storable import Parameter, Shape, Shapes, Stored, check_settings
from bayestl.gaussians._validate import check_added, checked_mean, checked_variances, factors, leafwise


def sum_over(values: Params, mean: Params) -> jax.Array:
    """The sum over all parameters of values in shapes that broadcast to those of ``mean``, without broadcasting."""
    pairs = zip(jax.tree.leaves(values), jax.tree.leaves(mean), strict=True)
    return _tree.total(m.size / max(a.size, 1) * jnp.sum(a) for a, m in pairs)


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Diagonal(Gaussian, kind="diagonal"):
    """Independent parameters: ``Sigma = diag(a)``. Made by :func:`isotropic` and :func:`diagonal`.

    Attributes:
        mean: pytree of means.
        diagonal: variances a, in the structure of ``mean``; leaves have shapes that broadcast to its leaves, and are
            stored in these shapes: () is one number for the leaf, (V, 1) one for every row of a (V, E) table.
    """

    mean: Any
    diagonal: Any

    def precision_quadratic(self, v: Params) -> jax.Array:
        """See :meth:`Gaussian.precision_quadratic`."""
        # Divided before the product: v^2 may overflow float32 where v^2 / a does not.
        return _tree.vdot(v, self.precision_mv(v))

    def log_det_covariance(self) -> jax.Array:
        """See :meth:`Gaussian.log_det_covariance`."""
        return sum_over(jax.tree.map(jnp.log, self.diagonal), self.mean)

    @property
    def variance(self) -> Params:
        """See :meth:`Gaussian.variance`."""
        return jax.tree.map(lambda a, m: jnp.broadcast_to(a, m.shape), self.diagonal, self.mean)

    def precision_diagonal(self) -> Params:
        """See :meth:`Gaussian.precision_diagonal`."""
        return jax.tree.map(lambda a: 1 / a, self.diagonal)

    def precision_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.precision_mv`."""
        return jax.tree.map(jnp.divide, v, self.diagonal)

    def covariance_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.covariance_mv`."""
        return jax.tree.map(jnp.multiply, v, self.diagonal)

    def whiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.whiten`."""
        return jax.tree.map(lambda x, a: x * jax.lax.rsqrt(a), v, self.diagonal)

    def unwhiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.unwhiten`."""
        return jax.tree.map(lambda x, a: x * jnp.sqrt(a), v, self.diagonal)

    def around(self, mean: Params) -> Diagonal:
        """See :meth:`Gaussian.around`."""
        return dataclasses.replace(self, mean=mean)

    def rescale(self, c: Any) -> Diagonal:
        """See :meth:`Gaussian.rescale`."""
        return Diagonal(self.mean, jax.tree.map(jnp.multiply, self.diagonal, factors(c, self.mean)))

    def inflate(self, eps: Scalar) -> Diagonal:
        """See :meth:`Gaussian.inflate`."""
        check_added(eps)
        return Diagonal(self.mean, jax.tree.map(lambda a: a + eps, self.diagonal))

    def restrict(self, selection: Selection) -> Diagonal:
        """See :meth:`Gaussian.restrict`."""
        part = _tree.as_selection(self.mean, selection)
        return Diagonal(part, _tree.like_selection(self.diagonal, part))

    def condition(self, values: Params, selection: Selection) -> Diagonal:
        """See :meth:`Gaussian.condition`; the same as the marginal, since parameters are independent."""
        return self.restrict(selection)

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`."""
        return sum_over(jax.tree.map(jnp.multiply, diagonal, self.diagonal), self.mean)

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`."""
        return sum_over(jax.tree.map(jnp.divide, diagonal, self.diagonal), self.mean)

    @property
    def num_directions(self) -> int:
        """See :attr:`Gaussian.num_directions`."""
        return 0

    def realign(self, like: Params) -> Diagonal:
        """See :meth:`Gaussian.realign`."""
        mean, diagonal = (_tree.restructure(_tree.by_paths(part), like) for part in (self.mean, self.diagonal))
        return Diagonal(mean, diagonal)

    def independent_variances(self) -> Params:
        """See :meth:`Gaussian.independent_variances`."""
        return self.diagonal

    def add_diagonal_precision(self, diagonal: Params) -> Diagonal:
        """See :meth:`Gaussian.add_diagonal_precision`: ``a / (1 + h a)``."""
        return Diagonal(self.mean, jax.tree.map(lambda a, h: a / (1 + h * a), self.diagonal, diagonal))

    def diagonal_log_det_ratio(self, diagonal: Params) -> jax.Array:
        """See :meth:`Gaussian.diagonal_log_det_ratio`."""
        return sum_over(jax.tree.map(lambda h, a: jnp.log1p(h * a), diagonal, self.diagonal), self.mean)

    def stored(self) -> Stored:
        """See :meth:`Gaussian.stored`."""
        return Stored({"mean": self.mean, "diagonal": self.diagonal})

    @classmethod
    def stored_shapes(cls, settings: Mapping[str, Any], parameters: Sequence[Parameter]) -> Shapes:
        """See :meth:`Gaussian.stored_shapes`."""
        check_settings(settings, set())
        mean = {p.path: Shape(p.shape) for p in parameters}
        return Shapes({"mean": mean, "diagonal": {p.path: Shape(p.shape, broadcasting=True) for p in parameters}}, {})

    @classmethod
    def from_stored(cls, stored: Stored) -> Diagonal:
        """See :meth:`Gaussian.from_stored`."""
        return Diagonal(**stored.trees)

    def check_values(self) -> None:
        """See :meth:`Gaussian.check_values`."""
        _tree.check_finite("mean", self.mean)
        _tree.check_positive("diagonal", self.diagonal)


def from_diagonal_precision(mean: Params, precision: Params) -> Diagonal:
    """The Gaussian with a diagonal precision, as under a flat prior: ``N(mu, diag(h)^-1)``.

    Works under jit, so values are not checked: a variance is NaN where h is not positive.

    Args:
        mean: pytree of floating-point arrays.
        precision: h, in the structure of ``mean``.

    Example:
        >>> g = btl.gaussians.from_diagonal_precision({"w": jnp.zeros(2)}, {"w": jnp.array([4.0, 0.0])})
        >>> print(g.variance["w"])
        [0.25  nan]
    """
    check_arguments(from_diagonal_precision, locals())
    variances = jax.tree.map(lambda h: jnp.where(h > 0, 1 / jnp.where(h > 0, h, 1), jnp.nan), precision)
    return Diagonal(mean, variances)


def isotropic(mean: Params, scale: Scalar | Params) -> Diagonal:
    """A Gaussian with independent parameters and one standard deviation: ``N(mu, scale^2 I)``.

    With the source weights as the mean this is the L2-SP prior; with zeros, ordinary weight decay.

    Args:
        mean: pytree of floating-point arrays.
        scale: standard deviation > 0; one number, or a pytree of one number per leaf of ``mean``.

    Raises:
        ValueError: a non-finite mean, or a scale that is not positive and finite.

    Example:
        >>> prior = btl.gaussians.isotropic({"w": jnp.zeros(3)}, scale=2.0)
        >>> print(prior.variance["w"])
        [4. 4. 4.]
    """
    check_arguments(isotropic, locals())
    mean = checked_mean(mean)
    scales = leafwise(scale, mean, "scale")
    # Checked again as a variance: the square of a scale of 1e-30 is 0 in float32.
    variances = jax.tree.map(lambda s, m: jnp.square(jnp.asarray(s, m.dtype)), scales, mean)
    return Diagonal(mean, checked_variances("scale squared", variances, mean, "take a scale nearer to 1"))


def diagonal(mean: Params, diagonal: Scalar | Params) -> Diagonal:
    """A Gaussian with independent parameters, each with its own variance: ``N(mu, diag(a))``.

    Args:
        mean: pytree of floating-point arrays.
        diagonal: variances a > 0: one number, or the structure of ``mean`` with leaves that broadcast to its leaves.
            They are stored in the shapes given: () is one variance for the leaf, (V, 1) one for every row of a (V, E)
            table.

    Raises:
        ValueError: structures that differ, shapes that do not broadcast, a non-finite mean, a variance that is not
            positive and finite.

    Example:
        >>> g = btl.gaussians.diagonal({"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 4.0])})
        >>> print(f"{g.log_prob({'w': jnp.zeros(2)}):.4f}")
        -2.5310
    """
    check_arguments(_constructor, locals())
    mean = checked_mean(mean)
    floor = "a variance of 0 is an infinitely sharp prior: add a floor eps > 0"
    return Diagonal(mean, checked_variances("diagonal", diagonal, mean, floor))


_constructor = diagonal  # whose own name is that of an argument inside
