"""Shares between 0 and 1."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import polygamma
from jaxtyping import Array, Float

from bayestl._arguments import check_arguments
from bayestl._types import Scalar
from bayestl.likelihoods._columns import one_each
from bayestl.likelihoods._positive import positive
from bayestl.likelihoods._raw import at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beta:
    """Beta distribution of mean sigmoid(f). Made by :func:`beta`.

    Attributes:
        concentration: the sum of the distribution's two numbers.
    """

    concentration: Any

    def __call__(self, outputs: Float[Array, "B ..."]) -> dist.Distribution:
        """Distribution over (0, 1), batch shape (B,)."""
        return dist.Beta(*self._numbers(outputs), validate_args=False).to_event(jnp.ndim(outputs) - 1)

    def hessian_root(self, outputs: Float[Array, "B ..."]) -> Float[Array, "K B ..."]:
        """The root of the Fisher information in f, ``(c m (1 - m))^2 (psi'(c m) + psi'(c (1 - m)))``."""
        first, second = self._numbers(outputs)
        slope = first * second / self.concentration
        return one_each(slope * jnp.sqrt(polygamma(1, first) + polygamma(1, second)))

    def _numbers(self, outputs: Any) -> tuple[jax.Array, jax.Array]:
        outputs = at_least_float32(outputs)
        return self.concentration * jax.nn.sigmoid(outputs), self.concentration * jax.nn.sigmoid(-outputs)


def beta(concentration: Scalar) -> Beta:
    """Likelihood of shares: logits of means (B,) or (B, ...), targets between 0 and 1, both excluded.

    Args:
        concentration: c > 0; the variance is ``m (1 - m) / (1 + c)``. A leaf, which may be traced.

    Raises:
        ValueError: a concentration that is not above 0.

    Reference:
        Ferrari and Cribari-Neto 2004, "Beta Regression for Modelling Rates and Proportions".

    Example:
        >>> likelihood = btl.likelihoods.beta(3.0)
        >>> print(likelihood(jnp.zeros(1)).mean, likelihood(jnp.zeros(1)).variance)
        [0.5] [0.0625]
    """
    check_arguments(beta, locals())
    return Beta(positive("concentration", concentration, "how narrow the shares lie around their mean"))
