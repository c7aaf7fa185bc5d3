"""The loop over batches. No other module chooses how to loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def total(fn: Callable[[jax.Array, Any], Any], num: int, stored: Any) -> Any:
    """``sum_i fn(i, stored[i])`` for i = 0, ..., num - 1, trees of arrays; one term is held at a time.

    Args:
        fn: the number of a batch, and what is stored for it, to a term.
        num: how many batches, static.
        stored: pytree of arrays (num, ...), or one without arrays.
    """
    first = jax.tree.map(lambda x: x[0], stored)
    shapes = jax.eval_shape(fn, jnp.zeros((), jnp.int32), first)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(so_far: Any, numbered: tuple[jax.Array, Any]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, so_far, fn(*numbered)), None

    return jax.lax.scan(add, start, (jnp.arange(num), stored))[0]


def stacked(fn: Callable[[Any], Any], num: int) -> Any:
    """``fn(i)`` for i = 0, ..., num - 1, along a leading axis."""
    return jax.lax.map(fn, jnp.arange(num))


def stacked_over(fn: Callable[[Any], Any], parts: Any) -> Any:
    """``fn`` of every entry along the leading axis of ``parts``, along a leading axis."""
    return jax.lax.map(fn, parts)
