"""Real targets whose errors count by their size, not its square."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl._arguments import check_arguments
from bayestl._types import Scalar
from bayestl.likelihoods._columns import one_each
from bayestl.likelihoods._positive import positive
from bayestl.likelihoods._raw import at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Laplace:
    """Laplace's distribution around the outputs. Made by :func:`laplace`.

    Attributes:
        scale: the mean absolute error, in the unit of the targets.
    """

    scale: Any

    def __call__(self, outputs: Float[Array, "B ..."]) -> dist.Distribution:
        """Distribution over real targets, batch shape (B,)."""
        location = at_least_float32(outputs)
        return dist.Laplace(location, jnp.broadcast_to(self.scale, location.shape), validate_args=False).to_event(
            location.ndim - 1
        )

    def hessian_root(self, outputs: Float[Array, "B ..."]) -> Float[Array, "K B ..."]:
        """The root of the Fisher information, ``1 / scale^2``. The Hessian itself is 0 but at the target."""
        location = at_least_float32(outputs)
        return one_each(jnp.broadcast_to(1 / self.scale, location.shape))


def laplace(scale: Scalar) -> Laplace:
    """Likelihood for regression by absolute errors, ``-log p = |y - f| / scale + log(2 scale)``.

    Outputs are locations (B,) or (B, ...), targets real numbers of the same shape.
    Not to be taken for :func:`bayestl.infer.laplace`, which approximates a posterior.

    Args:
        scale: the mean absolute error, in the unit of the targets, > 0; the standard deviation is ``sqrt(2)`` of it. A
            leaf, which may be traced.

    Raises:
        ValueError: a scale that is not above 0.

    Example:
        >>> likelihood = btl.likelihoods.laplace(0.5)
        >>> print(likelihood(jnp.zeros(2)).log_prob(jnp.array([1.0, 2.0])))
        [-2. -4.]
    """
    check_arguments(laplace, locals())
    return Laplace(positive("scale", scale, "the mean absolute error"))
