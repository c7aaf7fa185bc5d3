"""Convolutions and pooling by slices: the elements under every place of a window, as arrays.

Inside a compiled loop on a CPU, XLA runs convolutions and the gradients of pooling without its fast kernels. Slices and
matrix products stay fast, and the curvature of a convolution needs the windows under its kernel anyway.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bayestl._types import Params

_MOST = 64  # at most this many places of a pooling window are written out one by one


class SlidingWindow(NamedTuple):
    """A window that moves over the axes of an array; one number, or pair of numbers, per axis.

    Attributes:
        sizes: places along each axis.
        strides: distance between its positions.
        padding: (before, after).
        spread: distance between the elements of the array after zeros are inserted between them; 1 for no zeros.
        dilation: distance between the places.
    """

    sizes: Sequence[int]
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    spread: Sequence[int]
    dilation: Sequence[int]

    @property
    def is_tiling(self) -> bool:
        """Whether positions do not overlap and leave no gaps."""
        return tuple(self.sizes) == tuple(self.strides) and all(d == 1 for d in self.dilation)


def padded(x: jax.Array, window: SlidingWindow, value: Any) -> jax.Array:
    """The array with the padding around and the zeros between its elements."""
    config = [(low, high, s - 1) for (low, high), s in zip(window.padding, window.spread, strict=True)]
    if all(edge == (0, 0, 0) for edge in config):
        return x
    return lax.pad(x, jnp.asarray(value, x.dtype), config)


def positions(x: jax.Array, window: SlidingWindow) -> list[int]:
    """How many positions the window takes along each axis of a padded array."""
    each = zip(x.shape, window.sizes, window.strides, window.dilation, strict=True)
    return [(length - (size - 1) * dilation - 1) // stride + 1 for length, size, stride, dilation in each]


def tiles(x: jax.Array, window: SlidingWindow) -> tuple[jax.Array, tuple[int, ...]]:
    """For a tiling of a padded array: every axis as (positions, places), and the axes of the places."""
    counts = positions(x, window)
    lengths = [count * size for count, size in zip(counts, window.sizes, strict=True)]
    x = x[tuple(slice(0, length) for length in lengths)]
    pairs = itertools.chain.from_iterable(zip(counts, window.sizes, strict=True))
    return x.reshape(tuple(pairs)), tuple(range(1, 2 * len(counts), 2))


def slices(x: jax.Array, window: SlidingWindow) -> list[jax.Array]:
    """The elements of a padded array under each place of the window, at all positions; places in row-major order."""
    counts, slices_of_places = positions(x, window), []
    for place in itertools.product(*(range(size) for size in window.sizes)):
        starts = [i * d for i, d in zip(place, window.dilation, strict=True)]
        ends = [start + (n - 1) * s + 1 for start, n, s in zip(starts, counts, window.strides, strict=True)]
        slices_of_places.append(lax.slice(x, starts, ends, window.strides))
    return slices_of_places


def patches(x: jax.Array, window: SlidingWindow) -> jax.Array:
    """The elements of x (N, *space, C) under the window at each position: (N, *positions, places, C)."""
    x = padded(x, window, 0)
    if not window.is_tiling:
        return jnp.stack(slices(x, window), axis=-2)
    tiled, _ = tiles(x, window)
    n, c = x.shape[0], x.shape[-1]
    counts, axes = positions(x, window)[1:-1], range(2, tiled.ndim - 2, 2)
    order = (0, 1, *axes, *(axis + 1 for axis in axes), tiled.ndim - 2, tiled.ndim - 1)
    return tiled.transpose(order).reshape(n, *counts, math.prod(window.sizes[1:-1]), c)


def can_pool(params: Params) -> bool:
    """Whether :func:`pool` can compute this pooling."""
    return math.prod(params["window_dimensions"]) <= _MOST and all(s == 1 for s in params["base_dilation"])


def pool(name: str, params: Params, x: jax.Array) -> jax.Array:
    """The primitives ``reduce_window_max`` and ``reduce_window_sum``, with the same gradients."""
    fields = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    window = SlidingWindow(*(params[field] for field in fields))
    is_max = name == "reduce_window_max"
    x = padded(x, window, -jnp.inf if is_max else 0)
    if window.is_tiling:
        windows, axes = tiles(x, window)
    else:
        windows, axes = jnp.stack(slices(x, window)), (0,)
    if not is_max:
        return jnp.sum(windows, axes)
    for axis in reversed(axes):
        windows = _first_largest(windows, axis)
    return windows.reshape([n for i, n in enumerate(windows.shape) if i not in axes])


def _first_largest(windows: jax.Array, axis: int) -> jax.Array:
    """The largest value along ``axis``, which stays with length 1; the first, if several tie, alone has a gradient.

    Picked by its place. A comparison of each value with the largest is no way to find it: XLA may compute a value anew
    for each side, rounded in another way, so that none is equal (docs/compilers.md).
    """
    place = jnp.argmax(lax.stop_gradient(windows), axis, keepdims=True)
    order = lax.broadcasted_iota(place.dtype, _only(windows, axis), axis)
    return jnp.sum(jnp.where(order == place, windows, 0), axis, keepdims=True)


def _only(x: jax.Array, axis: int) -> tuple[int, ...]:
    return tuple(length if i == axis else 1 for i, length in enumerate(x.shape))
