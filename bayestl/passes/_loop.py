"""The loop over batches. This is the one place where it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._convolutions import for_loop, loop_map


def total(
    fn: Callable[[jax.Array, Any], Any], num: int, stored: Any, add: Callable[[Any, Any], Any] | None = None
) -> Any:
    """``sum_i fn(i, stored[i])`` for i = 0, ..., num - 1, trees of arrays; one term is held at a time.

    Args:
        fn: the number of a batch, and what is stored for it, to a term.
        num: how many batches, static.
        stored: pytree of arrays (num, ...), or one without arrays.
        add: the sum so far and a term to their sum; None for that of their arrays.
    """
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), stored)
    term, shapes = for_loop(fn, jax.ShapeDtypeStruct((), jnp.int32), first)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def step(so_far: Any, numbered: tuple[jax.Array, Any]) -> tuple[Any, None]:
        one = term(*numbered)
        return jax.tree.map(jnp.add, so_far, one) if add is None else add(so_far, one), None

    return jax.lax.scan(step, start, (jnp.arange(num, dtype=jnp.int32), stored))[0]


def stacked(fn: Callable[[Any], Any], num: int) -> Any:
    """``fn(i)`` for i = 0, ..., num - 1, along a leading axis."""
    return loop_map(fn, jnp.arange(num))


def stacked_over(fn: Callable[[Any], Any], parts: Any) -> Any:
    """``fn`` of every entry along the leading axis of ``parts``, along a leading axis."""
    return loop_map(fn, parts)
