"""The average over parameter samples."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def average(log_weights: jax.Array, values: jax.Array) -> jax.Array:
    """``sum_s w_s values_s`` over the leading axis."""
    weights = jnp.exp(log_weights).reshape(-1, *(1,) * (values.ndim - 1))
    # A product and a sum, since a matrix product may run in reduced precision on accelerators.
    return jnp.sum(weights * values, axis=0)
