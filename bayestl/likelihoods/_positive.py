"""Numbers of a likelihood that must be above 0."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl.likelihoods._raw import at_least_float32


def positive(name: str, value: Any, what: str) -> jax.Array:
    """The number, or one for each output, as a leaf of at least float32, which may be traced.

    Raises:
        ValueError: numbers that are not above 0 and finite.
    """
    array = jnp.asarray(value)
    array = at_least_float32(array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float))
    if _tree.is_concrete(array) and not bool(jnp.all(jnp.isfinite(array) & (array > 0))):
        raise ValueError(f"{name} is {value}; it is {what}, above 0 and finite")
    # A weak type would make a second program of the same one once the number is replaced by a computed value.
    return jax.lax.convert_element_type(array, jnp.dtype(array.dtype))
