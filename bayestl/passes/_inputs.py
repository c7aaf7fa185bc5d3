"""A function of many inputs, some at a time, where there are no targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_tree
from bayestl._types import Inputs
from bayestl.passes import _loop


def num_inputs(inputs: Inputs) -> int:
    """B, the length of the leading axis.

    Raises:
        TypeError: what is no pytree of arrays.
        ValueError: no arrays, one without axes, or arrays of different lengths.
    """
    check_tree("inputs", inputs)
    shapes = [np.shape(x) for x in jax.tree.leaves(inputs)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"inputs hold arrays of shapes {shapes}; give one or more, all with the same leading axis of examples, "
            "(B, ...)"
        )
    return shapes[0][0]


def mapped(fn: Callable[[Any], Any], inputs: Inputs, batch_size: int | None) -> Any:
    """``fn`` of the inputs, ``batch_size`` at a time: a loop in Python for values, inside the program for tracers.

    Args:
        fn: inputs (b, ...) -> pytree of arrays (b, ...), each example by itself.
        inputs: pytree of arrays (B, ...).
        batch_size: inputs at a time; None for all at once.

    Example:
        >>> btl.passes.mapped(lambda x: 2 * x, jnp.arange(5), 2).tolist()
        [0, 2, 4, 6, 8]
    """
    return (looped if _tree.is_concrete(inputs) else scanned)(fn, inputs, batch_size)


def scanned(fn: Callable[[Any], Any], inputs: Inputs, batch_size: int | None) -> Any:
    """``fn`` of the inputs, ``batch_size`` at a time, as one loop inside the program."""
    num = num_inputs(inputs)
    if batch_size is None or batch_size >= num:
        return fn(inputs)
    outputs = _loop.stacked_over(fn, split(inputs, batch_size))
    return joined(outputs, num)


def looped(fn: Callable[[Any], Any], inputs: Inputs, batch_size: int | None) -> Any:
    """``fn`` of the inputs, ``batch_size`` at a time, one call of ``fn`` after another: for values, not tracers."""
    num = num_inputs(inputs)
    if batch_size is None or batch_size >= num:
        return fn(inputs)
    parts = [fn(batch) for batch in in_turn(inputs, batch_size)]
    # Concatenated by numpy: JAX would compile a program with one argument per batch.
    return jax.tree.map(lambda *xs: jnp.asarray(np.concatenate(xs)[:num]), *parts)


def in_turn(inputs: Inputs, batch_size: int) -> Iterator[Any]:
    """The inputs (batch_size, ...) of one batch after another, the last one padded; they stay where they are stored."""
    for rows in _rows(num_inputs(inputs), batch_size):
        yield jax.tree.map(lambda x, rows=rows: x[rows], inputs)


def split(inputs: Inputs, batch_size: int) -> Any:
    """Leaves (B, ...) as (number of batches, batch_size, ...), the last batch padded."""
    missing = -num_inputs(inputs) % max(batch_size, 1)

    def leaf(x: jax.Array) -> jax.Array:
        # Copies of the last example, not zeros, are always valid inputs.
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), mode="edge")
        return x.reshape(-1, batch_size, *x.shape[1:])

    return jax.tree.map(leaf, inputs)


def joined(batches: Any, num: int) -> Any:
    """Undoes :func:`split` for what was computed from it: leaves (number of batches, batch_size, ...) to (B, ...)."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num], batches)


def _rows(num: int, batch_size: int) -> list[np.ndarray]:
    """Row numbers of every batch; the last one repeats the last row, so that all batches run the same program."""
    starts = range(0, num, batch_size)
    return [np.minimum(np.arange(start, start + batch_size), num - 1) for start in starts]
