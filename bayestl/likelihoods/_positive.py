"""Numbers of a likelihood that must be above 0."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl.likelihoods._raw import as_leaf


def positive(name: str, value: Any, what: str) -> jax.Array:
    """The number, or one for each output, as a leaf.

    Raises:
        ValueError: numbers that are not above 0 and finite.
    """
    array = as_leaf(value)
    if _tree.is_concrete(array) and not bool(jnp.all(jnp.isfinite(array) & (array > 0))):
        raise ValueError(f"{name} is {value}; it is {what}, above 0 and finite")
    return array
