"""Counts that vary more than their mean."""

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
class NegativeBinomial:
    """Counts of mean exp(f) and variance ``mean + mean^2 / concentration``. Made by :func:`negative_binomial`.

    Attributes:
        concentration: a number, or one for each output.
    """

    concentration: Any

    def __call__(self, outputs: Float[Array, "B ..."]) -> dist.Distribution:
        """Distribution over 0, 1, ..., batch shape (B,)."""
        mean = jnp.exp(at_least_float32(outputs))
        concentration = jnp.broadcast_to(self.concentration, mean.shape)
        return dist.NegativeBinomial2(mean, concentration, validate_args=False).to_event(mean.ndim - 1)

    def hessian_root(self, outputs: Float[Array, "B ..."]) -> Float[Array, "K B ..."]:
        """The root of the Fisher information in f, ``mean / (1 + mean / concentration)``."""
        outputs = at_least_float32(outputs)
        # As exp(f) / (1 + exp(f - log r)), which does not overflow.
        log_concentration = jnp.log(self.concentration)
        return one_each(jnp.exp(0.5 * (log_concentration + jax.nn.log_sigmoid(outputs - log_concentration))))


def negative_binomial(concentration: Scalar) -> NegativeBinomial:
    """Likelihood of counts that vary more than a Poisson's: log means (B,) or (B, ...), whole targets >= 0.

    Args:
        concentration: r > 0; the variance is ``mean + mean^2 / r``, and r to infinity is :func:`poisson`. A leaf, which
            may be traced.

    Raises:
        ValueError: a concentration that is not above 0.

    Example:
        >>> likelihood = btl.likelihoods.negative_binomial(2.0)
        >>> print(likelihood(jnp.zeros(1)).variance)
        [1.5]
    """
    check_arguments(negative_binomial, locals())
    return NegativeBinomial(positive("concentration", concentration, "how little counts vary beyond a Poisson's"))
