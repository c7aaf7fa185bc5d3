"""Pictures looked up at other places: one bilinear resampling, with SciPy's rules for what lies outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

FillMode = Literal["nearest", "constant", "reflect", "wrap"]
FILL_MODES = ("nearest", "constant", "reflect", "wrap")
# A picture that is not moved at all must keep its border, whatever float32 makes of the coordinates.
_MARGIN = 1e-3


def check_fill(fill_mode: FillMode, fill_value: float) -> None:
    """Refuse what no picture can be filled with.

    Raises:
        ValueError: an unknown mode, or a value that is not finite.
    """
    if fill_mode not in FILL_MODES:
        raise ValueError(f"fill_mode is {fill_mode!r}; give one of {', '.join(map(repr, FILL_MODES))} (SciPy's names)")
    if isinstance(fill_value, bool) or not isinstance(fill_value, int | float) or not abs(fill_value) < float("inf"):
        raise ValueError(f"fill_value is {fill_value!r}; give a finite number, on the scale of the pictures")


def warp(
    pictures: Float[Array, "batch height width channels"],
    rows: Float[Array, "batch new_height new_width"],
    columns: Float[Array, "batch new_height new_width"],
    fill_mode: FillMode,
    fill_value: float,
) -> Float[Array, "batch new_height new_width channels"]:
    """Every picture at its ``(rows, columns)``, between pixels bilinearly.

    Coordinates outside are folded back as ``scipy.ndimage`` folds them, and looked up after that: ``nearest`` at the
    border, ``reflect`` with the border pixel twice, ``wrap`` with period size - 1; ``constant`` is the fill value
    wherever a coordinate lies outside.
    """
    height, width = pictures.shape[1:3]

    def plane(values: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
        return map_coordinates(values, (rows, columns), order=1, mode="nearest")

    fold = _FOLDS[fill_mode]
    channels = jax.vmap(plane, in_axes=(2, None, None), out_axes=2)
    resampled = jax.vmap(channels)(pictures, fold(rows, height), fold(columns, width))
    if fill_mode != "constant":
        return resampled
    outside = _outside(rows, height) | _outside(columns, width)
    return jnp.where(outside[..., None], jnp.asarray(fill_value, resampled.dtype), resampled)


def _outside(x: jax.Array, size: int) -> jax.Array:
    return (x < -_MARGIN) | (x > size - 1 + _MARGIN)


def _clip(x: jax.Array, size: int) -> jax.Array:
    return jnp.clip(x, 0, size - 1)


def _reflect(x: jax.Array, size: int) -> jax.Array:
    x = jnp.mod(x + 0.5, 2 * size)
    return _clip(jnp.where(x > size, 2 * size - x, x) - 0.5, size)


def _wrap(x: jax.Array, size: int) -> jax.Array:
    return jnp.where(_outside(x, size), jnp.mod(x, max(size - 1, 1)), _clip(x, size))


_FOLDS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "nearest": _clip,
    "constant": _clip,
    "reflect": _reflect,
    "wrap": _wrap,
}
