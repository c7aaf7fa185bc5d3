"""Encoded pictures: decoded to arrays, and looked at before they become data."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from jaxtyping import UInt8

# What PIL calls them, and what a reader would.
_MODES = {
    "1": "black and white",
    "L": "grayscale",
    "LA": "grayscale with transparency",
    "I": "32-bit grayscale",
    "I;16": "16-bit grayscale",
    "F": "floating-point grayscale",
    "P": "palette",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK",
}
GRAY = frozenset({"1", "L"})


def decode_picture(
    encoded: bytes, size: tuple[int, int] | None = None, *, resample: int | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """An encoded RGB picture as an array of bytes, resized when a size is given.

    Decoded and resized by PIL, as Keras' ``load_img`` does: the whole picture is stretched to the size, and a rotation
    noted in the file is not applied.

    Args:
        encoded: JPEG, PNG or another format that PIL reads.
        size: (height, width) wanted; None for the picture's own.
        resample: a ``PIL.Image.Resampling``; bilinear by default, where ``load_img`` takes the nearest pixel. The
            filters of PIL average over all pixels that one new pixel covers.

    Raises:
        ValueError: a picture that cannot be decoded, or that is not RGB.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (40, 30), (255, 0, 0)).save(file, "PNG")
        >>> picture = btl.data.decode_picture(file.getvalue(), size=(8, 8))
        >>> picture.shape, picture[0, 0].tolist()
        ((8, 8, 3), [255, 0, 0])
    """
    from PIL import Image

    picture = opened(encoded)
    if picture.mode != "RGB":
        raise ValueError(f"the picture is {described(picture.mode)}, not RGB; convert it, or leave it out")
    if size is not None:
        height, width = size
        if min(height, width) < 1:
            raise ValueError(f"size is {size}; give (height, width), at least 1 each")
        picture = picture.resize((width, height), Image.Resampling.BILINEAR if resample is None else resample)
    return np.array(picture)


def opened(encoded: bytes) -> Any:
    """A picture decoded by PIL.

    Raises:
        ValueError: it cannot be decoded, to its end.
    """
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(encoded))
        picture.load()
    except Exception as error:  # decoders raise whatever they trip over
        raise ValueError(f"the picture cannot be decoded: {type(error).__name__}: {error}") from error
    return picture


def described(mode: str) -> str:
    """A kind of picture in words."""
    return f"{_MODES[mode]} (mode {mode})" if mode in _MODES else f"of mode {mode}"


def as_rgb(encoded: bytes) -> bytes:
    """A picture as an RGB picture, stored without loss."""
    file = io.BytesIO()
    opened(encoded).convert("RGB").save(file, "PNG")
    return file.getvalue()
