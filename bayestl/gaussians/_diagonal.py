"""Gaussians with independent parameters."""

from __future__ import annotations

import dataclasses
from typing import Any, final

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Params, Scalar
from bayestl.gaussians._base import Dual, Gaussian, leafwise
from bayestl.gaussians._validate import checked_mean, checked_variances


def log_det_diagonal(diagonal: Params, mean: Params) -> jax.Array:
    """``sum log a`` over all parameters, for variances a that are arrays or one number for a whole leaf."""
    pairs = zip(jax.tree.leaves(diagonal), jax.tree.leaves(mean), strict=True)
    return _tree.total(m.size / max(a.size, 1) * jnp.sum(jnp.log(a)) for a, m in pairs)


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Diagonal(Gaussian):
    """Independent parameters: ``Sigma = diag(a)``. Made by :func:`isotropic` and :func:`diagonal`.

    Attributes:
        mean: pytree of means.
        diagonal: variances a, in the structure of ``mean``; a leaf may be one number for all of that leaf.
    """

    mean: Any
    diagonal: Any

    def precision_quadratic(self, v: Params) -> jax.Array:
        """See :meth:`Gaussian.precision_quadratic`."""
        # Divided before the product: v^2 may overflow float32 where v^2 / a does not.
        return _tree.vdot(v, self.precision_mv(v))

    def log_det_covariance(self) -> jax.Array:
        """See :meth:`Gaussian.log_det_covariance`."""
        return log_det_diagonal(self.diagonal, self.mean)

    def variance(self) -> Params:
        """See :meth:`Gaussian.variance`."""
        return jax.tree.map(lambda a, m: jnp.broadcast_to(a, m.shape), self.diagonal, self.mean)

    def precision_diagonal(self) -> Params:
        """See :meth:`Gaussian.precision_diagonal`."""
        return jax.tree.map(lambda a, m: jnp.broadcast_to(1 / a, m.shape), self.diagonal, self.mean)

    def precision_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.precision_mv`."""
        return jax.tree.map(jnp.divide, v, self.diagonal)

    def covariance_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.covariance_mv`."""
        return jax.tree.map(jnp.multiply, v, self.diagonal)

    def whiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.whiten`."""
        return jax.tree.map(lambda x, a: x / jnp.sqrt(a), v, self.diagonal)

    def unwhiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.unwhiten`."""
        return jax.tree.map(lambda x, a: x * jnp.sqrt(a), v, self.diagonal)

    def around(self, mean: Params) -> Diagonal:
        """See :meth:`Gaussian.around`."""
        return dataclasses.replace(self, mean=mean)

    def rescale(self, c: Any) -> Diagonal:
        """See :meth:`Gaussian.rescale`."""
        return Diagonal(self.mean, jax.tree.map(jnp.multiply, self.diagonal, leafwise(c, self.mean)))

    def inflate(self, eps: Scalar) -> Diagonal:
        """See :meth:`Gaussian.inflate`."""
        return Diagonal(self.mean, jax.tree.map(lambda a: a + eps, self.diagonal))

    def restrict(self, selection: Any) -> Diagonal:
        """See :meth:`Gaussian.restrict`."""
        part = _tree.as_selection(self.mean, selection)
        return Diagonal(part, _tree.like_selection(self.diagonal, part))

    def condition(self, values: Params, selection: Any) -> Diagonal:
        """See :meth:`Gaussian.condition`: independent of the rest, so the marginal."""
        return self.restrict(selection)

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`."""
        return _tree.vdot(diagonal, self.diagonal)

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`."""
        return _tree.total(jax.tree.leaves(jax.tree.map(lambda b, a: jnp.sum(b / a), diagonal, self.diagonal)))

    @property
    def num_directions(self) -> int:
        """See :attr:`Gaussian.num_directions`."""
        return 0

    def realign(self, like: Params) -> Diagonal:
        """See :meth:`Gaussian.realign`."""
        mean, diagonal = (_tree.restructure(_tree.by_paths(part), like) for part in (self.mean, self.diagonal))
        return Diagonal(mean, diagonal)


def isotropic(mean: Params, scale: Any) -> Diagonal:
    """A Gaussian with independent parameters of one standard deviation: ``N(mu, scale^2 I)``.

    With the source weights as the mean this is the L2-SP prior; with zeros, ordinary weight decay.

    Args:
        mean: pytree of floating-point arrays.
        scale: standard deviation > 0; one number, or a pytree of one number per leaf of ``mean``.

    Raises:
        ValueError: a non-finite mean, or a scale that is not positive and finite.

    Example:
        >>> prior = btl.gaussians.isotropic({"w": jnp.zeros(3)}, scale=2.0)
        >>> print(prior.variance()["w"])
        [4. 4. 4.]
    """
    mean = checked_mean(mean)
    scales = leafwise(scale, mean, "scale")
    # Checked once more as a variance: a scale of 1e-30 has a square that float32 rounds to 0.
    variances = jax.tree.map(lambda s, m: jnp.square(jnp.asarray(s, m.dtype)), scales, mean)
    return Diagonal(mean, checked_variances("scale squared", variances, mean, "take a scale nearer to 1"))


def diagonal(mean: Params, diagonal: Any) -> Diagonal:
    """A Gaussian with independent parameters, each with its own variance: ``N(mu, diag(a))``.

    Args:
        mean: pytree of floating-point arrays.
        diagonal: variances a > 0 in the structure of ``mean``; a leaf, or all of it, may be one number.

    Raises:
        ValueError: structures or shapes that differ, a non-finite mean, a variance that is not positive and finite.

    Example:
        >>> g = btl.gaussians.diagonal({"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 4.0])})
        >>> print(f"{g.log_prob({'w': jnp.zeros(2)}):.4f}")
        -2.5310
    """
    mean = checked_mean(mean)
    floor = "a variance of 0 is an infinitely sharp prior: add a floor eps > 0"
    return Diagonal(mean, checked_variances("diagonal", diagonal, mean, floor))
