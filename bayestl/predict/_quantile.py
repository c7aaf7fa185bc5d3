"""Quantiles of a mixture of distributions of real numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from bayestl import _tree
from bayestl._types import Outputs, Scalar
from bayestl.predict._average import average

# Enough to bring a bracket of any float64 width down to neighbouring numbers around its quantile.
_HALVINGS = 64


def mixture_quantile(
    component: Callable[[Any], dist.Distribution], outputs: Outputs, log_weights: jax.Array, q: Scalar
) -> jax.Array:
    """The root x of ``sum_s w_s F_s(x) = q``, elementwise over the batch shape of ``component(outputs_s)``.

    Bisection alone has no derivative. The last line adds that of the implicit function, ``dx = -dF(x) / F'(x)``, with
    value zero.
    """
    if _tree.is_concrete(q) and not 0 < float(q) < 1:
        raise ValueError(f"q is {q}; a quantile is asked for at a probability between 0 and 1, both excluded")

    def cdf(outputs: Outputs, log_weights: jax.Array, x: jax.Array) -> jax.Array:
        each = jax.vmap(lambda o: component(o).cdf(x))(outputs)
        return average(log_weights, each)

    fixed = jax.lax.stop_gradient((outputs, log_weights, q))
    ends = jax.vmap(lambda o: component(o).icdf(fixed[2]))(fixed[0])

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = low + 0.5 * (high - low)
        below = cdf(fixed[0], fixed[1], middle) < fixed[2]
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    _, x = jax.lax.fori_loop(0, _HALVINGS, halve, (ends.min(axis=0), ends.max(axis=0)))
    density = jnp.exp(jax.vmap(lambda o: component(o).log_prob(x))(fixed[0]))
    density = average(fixed[1], density)
    step = -(cdf(outputs, log_weights, x) - q) / jnp.where(density > 0, density, 1)
    return x + (step - jax.lax.stop_gradient(step))
