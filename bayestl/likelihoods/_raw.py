"""The precision in which likelihoods are evaluated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl._types import Outputs


def as_leaf(value: Any) -> jax.Array:
    """Numbers of a likelihood as one of its leaves, of at least float32, which may be traced.

    A weak type would make a second program of the same one once the numbers are replaced by computed ones.
    """
    array = jnp.asarray(value)
    array = at_least_float32(array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float))
    return jax.lax.convert_element_type(array, jnp.dtype(array.dtype))


def at_least_float32(outputs: Outputs) -> Any:
    """Raw outputs with every floating-point leaf converted to at least float32; other leaves are unchanged."""

    def lift(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        low = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
        return x.astype(jnp.float32) if low else x

    return jax.tree.map(lift, outputs)
