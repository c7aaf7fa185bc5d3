"""Real targets among which some are far off."""

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
class StudentT:
    """Student's t around the outputs. Made by :func:`student_t`.

    Attributes:
        degrees: of freedom.
        scale: in the unit of the targets.
    """

    degrees: Any
    scale: Any

    def __call__(self, outputs: Float[Array, "B ..."]) -> dist.Distribution:
        """Distribution over real targets, batch shape (B,)."""
        location = at_least_float32(outputs)
        degrees, scale = (jnp.broadcast_to(x, location.shape) for x in (self.degrees, self.scale))
        return dist.StudentT(degrees, location, scale, validate_args=False).to_event(location.ndim - 1)

    def hessian_root(self, outputs: Float[Array, "B ..."]) -> Float[Array, "K B ..."]:
        """The root of the Fisher information of the location, ``(degrees + 1) / ((degrees + 3) scale^2)``.

        The Hessian itself is negative for targets far off."""
        location = at_least_float32(outputs)
        root = jnp.sqrt((self.degrees + 1) / (self.degrees + 3)) / self.scale
        return one_each(jnp.broadcast_to(root, location.shape))


def student_t(degrees: Scalar, scale: Scalar) -> StudentT:
    """Likelihood for regression with heavy tails, so that a few wrong targets count little: locations (B,) or (B, ...).

    Args:
        degrees: of freedom, > 0; some 4 for heavy tails, infinity is the normal.
        scale: in the unit of the targets, > 0; the standard deviation is ``scale sqrt(degrees / (degrees - 2))``.
            Leaves, both of them, which may be traced.

    Raises:
        ValueError: numbers that are not above 0 and finite.

    Reference:
        Lange, Little and Taylor 1989, "Robust Statistical Modeling Using the t Distribution".

    Example:
        >>> likelihood = btl.likelihoods.student_t(4.0, 0.5)
        >>> print(f"{likelihood(jnp.zeros(1)).log_prob(jnp.zeros(1))[0]:.3f}")
        -0.288
    """
    check_arguments(student_t, locals())
    return StudentT(positive("degrees", degrees, "a number of degrees"), positive("scale", scale, "a width"))
