"""Contrast, brightness, saturation and fog."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayestl._types import Key
from bayestl.data._corrupt_blur import along_axes

Pictures = Float[Array, "batch height width channels"]


def contrast(key: Key, pictures: Pictures, factor: float) -> Pictures:
    """m + factor (x - m) with m the mean of the channel over the picture."""
    mean = pictures.mean((1, 2), keepdims=True)
    return mean + factor * (pictures - mean)


def brightness(key: Key, pictures: Pictures, more: float) -> Pictures:
    """``more`` is added to the value of HSV, the largest of red, green and blue; hue and saturation stay."""
    value = pictures.max(-1, keepdims=True)
    brighter = jnp.clip(value + more, 0, 1)
    # Black has neither hue nor saturation, and becomes gray.
    return jnp.where(value > 0, pictures * (brighter / jnp.where(value > 0, value, 1)), brighter)


def saturate(key: Key, pictures: Pictures, factor: float, more: float) -> Pictures:
    """The saturation s of HSV becomes factor s + more, at most 1; hue and value stay, and what is gray stays gray."""
    value = pictures.max(-1, keepdims=True)
    spread = value - pictures.min(-1, keepdims=True)
    has_colour = spread > 0
    saturation = spread / jnp.where(has_colour, value, 1)
    ratio = jnp.clip(factor * saturation + more, 0, 1) / jnp.where(has_colour, saturation, 1)
    return jnp.where(has_colour, value - (value - pictures) * ratio, pictures)


def fog(key: Key, pictures: Pictures, density: float, decay: float) -> Pictures:
    """(x + density p) m / (m + density), with p a :func:`plasma` and m the largest value of the picture."""
    keys = jax.random.split(key, len(pictures))
    layer = jax.vmap(lambda own: plasma(own, pictures.shape[1], pictures.shape[2], decay))(keys)
    most = pictures.max((1, 2, 3), keepdims=True)
    return (pictures + density * layer[..., None]) * (most / (most + density))


def plasma(key: Key, height: int, width: int, decay: float) -> Float[Array, "height width"]:
    """Fractal noise from 0 to 1: sums of uniform noise on finer and finer grids, bilinear between their points.

    What midpoint displacement (Fournier, Fussell and Carpenter, 1982) adds up. Every grid is twice as fine as the one
    before, with amplitudes that are smaller by decay squared, down to the pixels. Squares of the grids are square, with
    2 of them along the longer side of the first.
    """
    side = max(height, width)
    total = jnp.zeros((1, height, width, 1), jnp.float32)
    for level in range(1, max(1, math.ceil(math.log2(side))) + 1):
        rows, columns = (jnp.asarray(_between_points(size, 2**level / side)) for size in (height, width))
        points = (1, rows.shape[1], columns.shape[1], 1)
        noise = jax.random.uniform(jax.random.fold_in(key, level), points, jnp.float32, -1, 1)
        total = total + decay ** (-2 * level) * along_axes(noise, rows, columns)
    lowest, range_ = total.min(), jnp.ptp(total)
    return ((total - lowest) / jnp.where(range_ > 0, range_, 1))[0, :, :, 0]


def _between_points(size: int, per_pixel: float) -> Float[np.ndarray, "size points"]:
    """Weights of the points of a grid at the middle of each pixel."""
    places = (np.arange(size)[:, None] + 0.5) * per_pixel
    return np.maximum(1 - np.abs(places - np.arange(math.ceil(size * per_pixel) + 1)), 0).astype(np.float32)
