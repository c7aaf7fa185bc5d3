"""What is lost in blocks of pixels: coarse pixels, and JPEG."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayestl._types import Key
from bayestl.data._corrupt_blur import along_axes

Pictures = Float[Array, "batch height width channels"]

# Tables K.1 and K.2 of ITU-T T.81 (09/92), of luminance and of chrominance.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# Luma of ITU-R BT.601, as JFIF has it; the differences of blue and red to it are scaled to the same range.
_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YCBCR = np.stack([_LUMA, ([0, 0, 1] - _LUMA) / 1.772, ([1, 0, 0] - _LUMA) / 1.402])


def block_means(size: int, share: float) -> Float[np.ndarray, "size size"]:
    """The matrix that gives pixels along an axis the mean of their block, of int(share size) blocks, at least one.

    What Pillow's box filter does, to the smaller size and back: a pixel belongs to the block its middle lies in.
    """
    num_blocks = max(1, int(share * size))
    blocks = (2 * np.arange(size) + 1) * num_blocks // (2 * size)
    same = blocks[:, None] == blocks
    return (same / same.sum(1, keepdims=True)).astype(np.float32)


def jpeg(key: Key, pictures: Pictures, quality: float) -> Pictures:
    """JPEG without its entropy coding, which loses nothing.

    Y'CbCr, colours at half the resolution (4:2:0), cosine transforms of 8 x 8 blocks, rounding to multiples of the
    tables, and back. Pictures of one channel are luminance alone. Pixels are not rounded to bytes.
    """
    luminance, chrominance = (_scaled(table, quality) for table in (LUMINANCE, CHROMINANCE))
    if pictures.shape[-1] == 1:
        return (_through_blocks(255 * pictures - 128, luminance) + 128) / 255
    planes = jnp.einsum("bhwc,dc->bhwd", 255 * pictures, np.float32(_TO_YCBCR), precision="highest")
    luma = _through_blocks(planes[..., :1] - 128, luminance) + 128
    halves, doubles = zip(*(_half_and_double(size) for size in pictures.shape[1:3]), strict=True)
    colours = along_axes(_through_blocks(along_axes(planes[..., 1:], *halves), chrominance), *doubles)
    back = np.float32(np.linalg.inv(_TO_YCBCR))
    return jnp.einsum("bhwd,cd->bhwc", jnp.concatenate([luma, colours], -1), back, precision="highest") / 255


def _scaled(table: np.ndarray, quality: float) -> Float[Array, "8 8"]:
    """A table at a quality from 1 to 100, by the rule of the Independent JPEG Group."""
    percent = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    return jnp.clip(jnp.floor((table.astype(np.float32) * percent + 50) / 100), 1, 255)


def _through_blocks(planes: Pictures, table: Float[Array, "8 8"]) -> Pictures:
    """Planes after the cosine coefficients of their blocks are rounded to multiples of a table."""
    num, height, width, channels = planes.shape
    rest = [(0, -size % 8) for size in (height, width)]
    padded = jnp.pad(planes, ((0, 0), *rest, (0, 0)), mode="edge")
    blocks = padded.reshape(num, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8, channels)
    cosines = _cosines()
    coefficients = jnp.einsum("ui,vj,bpiqjc->bpuqvc", cosines, cosines, blocks, precision="highest")
    steps = table[:, None, :, None]
    rounded = jnp.round(coefficients / steps) * steps
    blocks = jnp.einsum("ui,vj,bpuqvc->bpiqjc", cosines, cosines, rounded, precision="highest")
    return blocks.reshape(padded.shape)[:, :height, :width]


def _cosines() -> Float[np.ndarray, "8 8"]:
    """The orthonormal cosine transform of 8 numbers (DCT-II)."""
    u, i = np.arange(8)[:, None], np.arange(8)
    return (np.sqrt(np.where(u == 0, 1, 2) / 8) * np.cos((2 * i + 1) * u * np.pi / 16)).astype(np.float32)


def _half_and_double(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices to the means of pairs, the last pixel of an odd size twice, and back, linear between their middles."""
    half = (size + 1) // 2
    means = np.zeros((half, size))
    for offset in (0, 1):
        np.add.at(means, (np.arange(half), np.minimum(2 * np.arange(half) + offset, size - 1)), 0.5)
    places = np.clip((np.arange(size)[:, None] + 0.5) / 2 - 0.5, 0, half - 1)
    return means.astype(np.float32), np.maximum(1 - np.abs(places - np.arange(half)), 0).astype(np.float32)
