"""Encoded pictures: decoded to arrays, and looked at before they become data."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from jaxtyping import UInt8

from bayestl._arguments import check_arguments

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
MOST_PIXELS = 1 << 26
_ORIENTATION = 0x0112  # the EXIF tag
_TILE = (322, 323)  # the TIFF tags: width and height, decoded as a whole
# Raster formats. Other decoders of PIL start programs (EPS: Ghostscript), or read what is no picture.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")


class TooLarge(ValueError):
    """A picture with more pixels than are allowed."""


def decode_picture(
    encoded: bytes,
    size: tuple[int, int] | None = None,
    *,
    resample: int | None = None,
    upright: bool = False,
    max_pixels: int = MOST_PIXELS,
) -> UInt8[np.ndarray, "height width 3"]:
    """An encoded RGB picture as an array of bytes, resized when a size is given.

    Decoded and resized by PIL, as Keras' ``load_img`` does: the whole picture is stretched to the size, and a rotation
    noted in the file is not applied unless ``upright`` asks for it.

    Args:
        encoded: AVIF, BMP, GIF (its first frame), JPEG, JPEG 2000, PNG, PPM, TGA, TIFF or WebP; no others are tried,
            since some of PIL's decoders start other programs.
        size: (height, width) wanted; None for the picture's own.
        resample: a ``PIL.Image.Resampling``; bilinear by default, where ``load_img`` takes the nearest pixel. The
            filters of PIL average over all pixels that one new pixel covers.
        upright: turn the picture as its EXIF orientation says, as viewers do. :func:`folder` says how many need it.
        max_pixels: larger pictures are refused before they are decoded; each takes up to 4 bytes per pixel, in every
            thread that decodes.

    Raises:
        ValueError: a picture that cannot be decoded, that is too large, or that is not RGB.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (40, 30), (255, 0, 0)).save(file, "PNG")
        >>> picture = btl.data.decode_picture(file.getvalue(), size=(8, 8))
        >>> picture.shape, picture[0, 0].tolist()
        ((8, 8, 3), [255, 0, 0])
    """
    check_arguments(decode_picture, locals())
    picture = opened(encoded, max_pixels)
    from PIL import Image, ImageOps

    if picture.mode != "RGB":
        raise ValueError(f"the picture is {described(picture)}, not RGB; {advice(picture)}, or leave it out")
    if upright:
        picture = ImageOps.exif_transpose(picture)
    if size is not None:
        height, width = size
        if min(height, width) < 1:
            raise ValueError(f"size is {size}; give (height, width), at least 1 each")
        picture = picture.resize((width, height), Image.Resampling.BILINEAR if resample is None else resample)
    return np.array(picture)


def opened(encoded: bytes, max_pixels: int = MOST_PIXELS) -> Any:
    """A picture decoded by PIL.

    Raises:
        ImportError: Pillow is not installed.
        TooLarge: it has more than ``max_pixels`` pixels.
        ValueError: it cannot be decoded, to its end.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('pictures are decoded by PIL: pip install "bayestl[data]", or pip install pillow') from error
    Image.init()
    try:
        picture = Image.open(io.BytesIO(encoded), formats=[form for form in FORMATS if form in Image.OPEN])
        tile = [getattr(picture, "tag_v2", {}).get(tag, 1) for tag in _TILE]
    except Exception as error:  # decoders raise whatever they trip over
        raise _undecodable(error) from error
    for width, height in (picture.size, tile):
        if width * height > max_pixels:
            raise TooLarge(
                f"the picture has {width:,} x {height:,} pixels, more than the {max_pixels:,} allowed; make it "
                "smaller, or give a larger max_pixels"
            )
    try:
        picture.load()
    except Exception as error:
        raise _undecodable(error) from error
    return picture


def _undecodable(error: Exception) -> ValueError:
    return ValueError(f"the picture cannot be decoded: {type(error).__name__}: {error}")


def is_turned(picture: Any) -> bool:
    """Whether the file says that the picture is to be turned or mirrored before it is shown."""
    try:
        return picture.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # what cameras write there is often damaged, and a viewer then shows the picture as it is
        return False


def is_palette(picture: Any) -> bool:
    """Whether the pixels are places in a list of opaque colours, so that nothing is lost when they become RGB."""
    return picture.mode == "P" and "transparency" not in picture.info


def described(picture: Any) -> str:
    """A kind of picture in words."""
    mode = picture.mode
    if mode == "P" and not is_palette(picture):
        return "palette with transparency (mode P)"
    return f"{_MODES[mode]} (mode {mode})" if mode in _MODES else f"of mode {mode}"


def advice(picture: Any) -> str:
    """How a picture that is not RGB becomes one."""
    if is_palette(picture):
        return "its pixels are places in a list of colours: import it with data.folder(..., palette_to_rgb=True)"
    if picture.mode in GRAY:
        return "import it with data.folder(..., gray_to_rgb=True)"
    return "convert it"


def as_rgb(encoded: bytes, max_pixels: int = MOST_PIXELS) -> bytes:
    """A picture as an RGB picture, stored without loss, with what the file says of its orientation."""
    file, picture = io.BytesIO(), opened(encoded, max_pixels)
    keep = {"exif": picture.getexif()} if is_turned(picture) else {}
    picture.convert("RGB").save(file, "PNG", **keep)
    return file.getvalue()
