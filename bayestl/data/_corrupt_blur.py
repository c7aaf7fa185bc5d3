"""Blur of pictures: normal, by a lens out of focus, by motion, by zooming. Outside of a picture its border goes on.

Matrices and kernels are made on the host: programs take them, so that all severities share one.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayestl._types import Key

Pictures = Float[Array, "batch height width channels"]

_WIDEST_ANGLE = math.pi / 4
# A half normal is cut off where its weight falls below e^-8, as SciPy cuts off the normal.
_TRUNCATE = 4.0


def along_axes(
    pictures: Pictures, rows: Float[Array, "new_height height"], columns: Float[Array, "new_width width"]
) -> Float[Array, "batch new_height new_width channels"]:
    """A matrix applied along the height of pictures, and another along their width."""
    halfway = jnp.einsum("ih,bhwc->biwc", rows, pictures, precision="highest")
    return jnp.einsum("jw,biwc->bijc", columns, halfway, precision="highest")


def linear(key: Key, pictures: Pictures, rows: Float[Array, "height height"], columns: Any) -> Pictures:
    """As :func:`along_axes`."""
    return along_axes(pictures, rows, columns)


def gaussian_matrix(size: int, sigma: float) -> Float[np.ndarray, "size size"]:
    """A normal kernel along an axis, cut off at 4 sigma: ``scipy.ndimage.gaussian_filter1d(mode="nearest")``."""
    radius = int(_TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix, places = np.zeros((size, size)), np.arange(size)[:, None]
    np.add.at(matrix, (places, np.clip(places + offsets, 0, size - 1)), weights / weights.sum())
    return matrix.astype(np.float32)


def defocus_blur(key: Key, pictures: Pictures, kernel: Float[Array, "size size"]) -> Pictures:
    """The mean over a :func:`disc` around each pixel."""
    return _convolve(pictures, kernel)


def disc(radius: float) -> Float[np.ndarray, "size size"]:
    """The share of every pixel in a disc of ``radius`` pixels around the middle one; the shares sum to 1."""
    reach, parts = max(math.ceil(radius - 0.5), 0), max(4, math.ceil(64 / radius))
    size = 2 * reach + 1
    squares = ((np.arange(size * parts) + 0.5) / parts - size / 2) ** 2
    inside = squares[:, None] + squares <= radius**2
    shares = inside.reshape(size, parts, size, parts).sum((1, 3), dtype=float)
    return (shares / shares.sum()).astype(np.float32)


def motion_blur(key: Key, pictures: Pictures, weights: Float[Array, " steps"]) -> Pictures:
    """A trail behind every pixel, at an angle of its own in each picture, uniform within 45 degrees of the rows."""
    angles = jax.random.uniform(key, pictures.shape[:1], pictures.dtype, minval=-_WIDEST_ANGLE, maxval=_WIDEST_ANGLE)
    return _convolve(pictures, jax.vmap(lambda angle: trail(angle, weights))(angles))


def half_normal(radius: float, sigma: float) -> Float[np.ndarray, " steps"]:
    """Weights of 0, 1, ... pixels behind; they end at 2 radius, which is ImageMagick's meaning of it, or at 4 sigma."""
    reach = max(1, min(2 * math.ceil(radius), math.ceil(_TRUNCATE * sigma)))
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def trail(angle: Float[Array, ""], weights: Float[Array, " steps"]) -> Float[Array, "size size"]:
    """Weights in steps of a pixel along a line from the middle; each is shared by the four pixels around its place."""
    reach = len(weights) - 1
    steps = np.arange(reach + 1, dtype=np.float32)
    places = np.arange(-reach, reach + 1, dtype=np.float32)[:, None]

    def shares(along: Any) -> Float[Array, "size steps"]:
        return jnp.maximum(1 - jnp.abs(places - along), 0)

    rows, columns = shares(steps * jnp.sin(angle)), shares(steps * jnp.cos(angle))
    return jnp.einsum("s,is,js->ij", weights, rows, columns, precision="highest")


def zoom_blur(
    key: Key, pictures: Pictures, rows: Float[Array, "zooms height height"], columns: Float[Array, "zooms width width"]
) -> Pictures:
    """The mean of pictures that are enlarged by each of several factors."""

    def add(total: Pictures, matrices: Any) -> tuple[Pictures, None]:
        return total + along_axes(pictures, *matrices), None

    return jax.lax.scan(add, jnp.zeros_like(pictures), (rows, columns))[0] / len(rows)


def enlarged(size: int, largest: float, step: float) -> Float[np.ndarray, "zooms size size"]:
    """Matrices that enlarge an axis about its middle by 1, and by 1, 1 + step, ..., largest; linear between pixels."""
    factors = np.concatenate([[1.0], 1 + step * np.arange(round((largest - 1) / step) + 1)])
    places = (size - 1) / 2 + (np.arange(size) - (size - 1) / 2) / factors[:, None]
    return np.maximum(1 - np.abs(places[..., None] - np.arange(size)), 0).astype(np.float32)


def _convolve(pictures: Pictures, kernels: Float[Array, "*batch size size"]) -> Pictures:
    """Every picture convolved with the one kernel or with its own, whose side is odd.

    By Fourier transforms: kernels of single pictures are no convolution that compilers do well, and where a program
    has convolutions, loops over its steps are taken apart on CPUs.
    """
    reach, (height, width) = kernels.shape[-1] // 2, pictures.shape[1:3]
    padded = jnp.pad(pictures, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    size = padded.shape[1:3]
    spectra = jnp.fft.rfft2(kernels, size)
    # One kernel for all pictures has no axis for them, and none has one for channels.
    spectra = spectra[..., None] if kernels.ndim == 3 else spectra[None, :, :, None]
    blurred = jnp.fft.irfft2(spectra * jnp.fft.rfft2(padded, axes=(1, 2)), size, axes=(1, 2))
    return blurred[:, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
