"""Counts."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl.likelihoods._columns import one_each
from bayestl.likelihoods._raw import at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Poisson:
    """Counts of rate exp(f). Made by :func:`poisson`."""

    def __call__(self, outputs: Float[Array, "B ..."]) -> dist.Distribution:
        """Distribution over 0, 1, ..., batch shape (B,)."""
        rate = jnp.exp(at_least_float32(outputs))
        return dist.Poisson(rate, validate_args=False).to_event(rate.ndim - 1)

    def hessian_root(self, outputs: Float[Array, "B ..."]) -> Float[Array, "K B ..."]:
        """``exp(f / 2)``: the Hessian is the rate, whatever the target."""
        return one_each(jnp.exp(0.5 * at_least_float32(outputs)))


def poisson() -> Poisson:
    """Likelihood of counts: log rates (B,) or (B, ...), whole targets >= 0 of the same shape.

    The equation is ``log p(y | f) = y f - exp(f) - log y!``.

    Example:
        >>> likelihood = btl.likelihoods.poisson()
        >>> print(f"{likelihood(jnp.zeros(1)).log_prob(jnp.array([0]))[0]:.3f}")
        -1.000
    """
    return Poisson()
