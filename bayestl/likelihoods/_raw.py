"""The precision in which likelihoods are evaluated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl._types import Outputs


def at_least_float32(outputs: Outputs) -> Any:
    """Raw outputs with every floating-point leaf converted to at least float32; other leaves are unchanged."""

    def lift(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        low = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
        return x.astype(jnp.float32) if low else x

    return jax.tree.map(lift, outputs)
