"""Look-ups of rows in a table, by row number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import GatherScatterMode

from bayestl._rearrangement import Rearrangement
from bayestl._types import Params


class RowForm(NamedTuple):
    """A look-up of P rows in a table of V rows with O numbers each; as a product, rows of the identity times the table.

    Attributes:
        kind: ``look-up``.
        description: details, for inventories.
        positions: P, for one example.
        rows: from the operation's indices to the row numbers, (P,); V for no row.
        weights: from the table, as the operation takes it, to (V, 1, O): one group per row.
        outputs: from the operation's output to (P, 1, O).
    """

    kind: str
    description: str
    positions: int
    rows: Callable[[jax.Array], jax.Array]
    weights: Rearrangement
    outputs: Rearrangement


def of_gather(params: Params, shapes: Sequence[Any], out_shape: Sequence[int]) -> RowForm | None:
    """A ``gather`` of whole rows, along any one axis of the table; None for any other ``gather``.

    Args:
        params: the primitive's.
        shapes: shapes of table and indices.
        out_shape: shape of the output.
    """
    table, indices = shapes
    numbers, sizes = params["dimension_numbers"], tuple(params["slice_sizes"])
    is_clipped = GatherScatterMode.from_any(params["mode"]) == GatherScatterMode.CLIP
    cut = [axis for axis, (size, length) in enumerate(zip(sizes, table, strict=True)) if size != length]
    starts = tuple(numbers.start_index_map)
    if numbers.operand_batching_dims or len(cut or starts) != 1:
        return None
    (axis,) = cut or starts
    # A row taken by a single index is a slice with a start along every axis; starts along whole axes are clipped to 0.
    if sizes[axis] != 1 or axis not in starts or not (is_clipped or len(starts) == 1):
        return None
    whole = tuple(1 if other == axis else length for other, length in enumerate(table))
    count, positions, length = table[axis], math.prod(indices[:-1]), math.prod(whole)
    order = (axis, *(other for other in range(len(table)) if other != axis))
    weights = Rearrangement(tuple(table), (("transpose", order), ("reshape", (count, 1, length))))
    inner = tuple(numbers.offset_dims)
    outer = tuple(other for other in range(len(out_shape)) if other not in inner)
    steps = (("transpose", (*outer, *inner)), ("reshape", (positions, 1, length)))

    def rows(indices: jax.Array) -> jax.Array:
        flat = indices[..., starts.index(axis)].reshape(positions).astype(jnp.int32)
        if is_clipped:
            return jnp.clip(flat, 0, count - 1)
        return jnp.where((flat < 0) | (flat >= count), count, flat)  # outside the table: no row

    return RowForm(
        "look-up", f"{count} rows of {length}", positions, rows, weights, Rearrangement(tuple(out_shape), steps)
    )
