"""Corruptions of pictures at five severities, inside the compiled step: how a predictive behaves where data degrade."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Batch, Key
from bayestl.data._augment import pictures_of, replace_pictures
from bayestl.data._corrupt_blocks import block_means, jpeg
from bayestl.data._corrupt_blur import (
    defocus_blur,
    disc,
    enlarged,
    gaussian_matrix,
    half_normal,
    linear,
    motion_blur,
    zoom_blur,
)
from bayestl.data._corrupt_colour import brightness, contrast, fog, saturate
from bayestl.data._corrupt_noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise

Like = Literal["cifar10_c", "imagenet_c"]

_SIDES = {"cifar10_c": 32, "imagenet_c": 224}
_SMALLEST_SIDE = 32
_NUM_SEVERITIES = 5


class _Recipe(NamedTuple):
    """A corruption and its constants.

    Attributes:
        function: ``(key, pictures, *numbers) -> pictures`` in [0, 1] or beyond, float32.
        constants: data set to what severity 1 to 5 stands for.
        numbers: ``(height, width, *constants)`` to what the function takes, made on the host.
        in_pixels: the constants are lengths.
        in_colour: it is of gray or RGB pictures only.
    """

    function: Callable[..., jax.Array]
    constants: dict[str, tuple[Any, ...]]
    numbers: Callable[..., tuple[Any, ...]]
    in_pixels: bool = False
    in_colour: bool = False


def _as_they_are(height: int, width: int, *constants: float) -> tuple[float, ...]:
    return tuple(map(float, constants))


def _each_axis(matrix: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    return lambda height, width, *constants: (matrix(height, *constants), matrix(width, *constants))


def _recipe(
    function: Callable[..., jax.Array], cifar10_c: tuple, imagenet_c: tuple, numbers: Any = _as_they_are, **more: bool
) -> _Recipe:
    return _Recipe(function, {"cifar10_c": cifar10_c, "imagenet_c": imagenet_c}, numbers, **more)


# Of Hendrycks and Dietterich (2019), ImageNet-C/create_c in github.com/hendrycks/robustness, but for these: in
# CIFAR-10-C, the radii of discs spread light as far (in second moments) as its discs behind a normal blur; motion blur
# 4 has a sigma of 2.25 for 2, which would be severity 3; saturation 3 is ImageNet-C's, where 1.5 is milder than 2.
_RECIPES = {
    "gaussian_noise": _recipe(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": _recipe(shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": _recipe(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": _recipe(speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": _recipe(
        linear, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6), _each_axis(gaussian_matrix), in_pixels=True
    ),
    "defocus_blur": _recipe(
        defocus_blur,
        (0.6, 0.74, 0.9, 1.02, 1.6),
        (3, 4, 6, 8, 10),
        lambda height, width, radius: (disc(radius),),
        in_pixels=True,
    ),
    "motion_blur": _recipe(
        motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2.25), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        lambda height, width, radius, sigma: (half_normal(radius, sigma),),
        in_pixels=True,
    ),
    "zoom_blur": _recipe(
        zoom_blur,
        ((1.05, 0.01), (1.1, 0.01), (1.15, 0.01), (1.2, 0.01), (1.25, 0.01)),
        ((1.1, 0.01), (1.15, 0.01), (1.2, 0.02), (1.24, 0.02), (1.3, 0.03)),
        _each_axis(enlarged),
    ),
    "fog": _recipe(
        fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": _recipe(brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5), in_colour=True),
    "contrast": _recipe(contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "saturate": _recipe(
        saturate,
        ((0.3, 0), (0.1, 0), (2, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        in_colour=True,
    ),
    "pixelate": _recipe(linear, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25), _each_axis(block_means)),
    "jpeg": _recipe(jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7), in_colour=True),
}

CORRUPTIONS = tuple(_RECIPES)
"""The names that :func:`corrupt` knows."""


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One corruption at one severity; made by :func:`corrupt`."""

    name: str
    severity: int
    like: Like
    maximum: float

    def apply(
        self, key: Key, pictures: Num[Array, "batch height width channels"]
    ) -> Num[Array, "batch height width channels"]:
        """The corrupted pictures, of the same shape and dtype, for code that has no batch."""
        check_arguments(Corruption.apply, locals())
        return self(key, Batch(pictures, None)).inputs

    def __call__(self, key: Key, batch: Batch) -> Batch:
        check_arguments(Corruption.__call__, locals())
        pictures = pictures_of(batch)
        self._check(pictures)
        recipe, (height, width) = _RECIPES[self.name], pictures.shape[1:3]
        numbers = recipe.numbers(height, width, *self.constants(height, width))
        return replace_pictures(batch, _corrupted(key, jnp.asarray(pictures), numbers, self.maximum, recipe.function))

    def constants(self, height: int, width: int) -> tuple[float, ...]:
        """The numbers behind the severity, lengths in pixels of pictures of this size."""
        recipe = _RECIPES[self.name]
        row = recipe.constants[self.like][self.severity - 1]
        numbers = row if isinstance(row, tuple) else (row,)
        if not recipe.in_pixels:
            return numbers
        scale = max(min(height, width), _SMALLEST_SIDE) / _SIDES[self.like]
        return tuple(scale * number for number in numbers)

    def _check(self, pictures: Any) -> None:
        """Raise on pictures that are not of this scale, as far as they are known before the program runs."""
        dtype, (height, width, channels) = pictures.dtype, pictures.shape[1:]
        if min(height, width, channels) == 0:
            raise ValueError(f"inputs has shape {pictures.shape}: pictures without a pixel cannot be corrupted")
        if _RECIPES[self.name].in_colour and channels not in (1, 3):
            raise ValueError(f"the pictures have {channels} channels; {self.name} is of RGB or gray pictures")
        whole = jnp.issubdtype(dtype, jnp.integer)
        if not whole and not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"inputs has dtype {dtype}; give pictures as floats or as bytes")
        if whole and not 2 <= self.maximum <= jnp.iinfo(dtype).max:
            raise ValueError(
                f"the pictures are {dtype} and maximum is {self.maximum:g}; corrupt(..., maximum=255) is for bytes, or "
                "make them numbers in [0, 1] first: normalize(0.0, 1.0)"
            )
        if pictures.size and _tree.is_concrete(pictures):
            low, high = float(pictures.min()), float(pictures.max())
            # A thousandth above: sums of colours that were rounded.
            if not (low >= -1e-3 * self.maximum and high <= 1.001 * self.maximum):
                raise ValueError(
                    f"the pictures have values from {low:g} to {high:g} and maximum is {self.maximum:g}; give pictures "
                    "from 0 to maximum: corrupt them before they are normalized, with maximum=255 where white is 255"
                )


@partial(jax.jit, static_argnames="function")
def _corrupted(
    key: Key, pictures: jax.Array, numbers: tuple[Any, ...], maximum: float, function: Callable[..., jax.Array]
) -> jax.Array:
    # One program for all severities whose numbers have the same shapes.
    dtype = pictures.dtype
    unit = jnp.clip(pictures.astype(jnp.float32) / maximum, 0, 1)
    changed = function(key, unit, *numbers)
    scaled = maximum * jnp.clip(changed, 0, 1)
    return (jnp.round(scaled) if jnp.issubdtype(dtype, jnp.integer) else scaled).astype(dtype)


def corrupt(name: str, severity: int, *, like: Like = "cifar10_c", maximum: float = 1.0) -> Corruption:
    """A transform that degrades every picture in one of 14 ways, at a severity from 1 to 5.

    For test sets that drift away from the training set, ``transform(key, batch)``, and as augmentation
    ``fit(..., transform=...)``; it runs inside the compiled step. ``transform.apply(key, pictures)`` takes bare arrays.
    Pictures (B, height, width, channels) of any size come out with the same shape and dtype, clipped to [0, maximum].

    * ``gaussian_noise``: normal noise on every value; ``speckle_noise``: in proportion to the value.
    * ``shot_noise``: Poisson noise of counted light, with a variance in proportion to the value.
    * ``impulse_noise``: values replaced by black or white.
    * ``gaussian_blur``, ``defocus_blur``: a normal kernel, a disc.
    * ``motion_blur``: a trail, half a normal, at a random angle within 45 degrees of the rows.
    * ``zoom_blur``: the mean of the picture enlarged by factors from 1 on.
    * ``fog``: fractal noise added, light taken away.
    * ``brightness``: more of the value of HSV.
    * ``contrast``: towards the mean of each channel.
    * ``saturate``: saturation of HSV taken away (1, 2) or added (3, 4, 5). Gray stays as it is, and so does every
      picture of one channel.
    * ``pixelate``: means of blocks, whose number is a share of the pixels.
    * ``jpeg``: rounded cosine transforms of 8 x 8 blocks, with the tables of ITU-T T.81, Annex K, and colours at half
      the resolution (4:2:0, as Pillow writes them); one channel is luminance.

    Severities have the constants of CIFAR-10-C and ImageNet-C (Hendrycks and Dietterich, 2019), with these exceptions.
    For CIFAR-10-C, discs have radii of this package, which spread light as far as the published kernels; motion blur 4
    and saturation 3, which would be no worse than the severity below, lie between their neighbours or are taken from
    ImageNet-C. What is made of the constants is this package's: borders go on outside of the picture, discs are smooth
    at their edge, fog is a sum of uniform noise on finer and finer grids, and nothing is rounded to bytes on the way.
    Numbers from these pictures are therefore close to those from the published files, and not to be compared digit by
    digit.

    Lengths of blurs are for pictures of 32 or 224 pixels and scale with the shorter side; below 32 pixels they stay
    as they are at 32.

    Args:
        name: one of ``data.CORRUPTIONS``.
        severity: from 1 (mild) to 5 (severe). The mean distance to the original grows, but for fog 4 of ImageNet-C,
            which is as dense as 3 and of finer grain, and for saturation where colours are full already.
        like: ``"cifar10_c"``, mild, or ``"imagenet_c"``, severe.
        maximum: white on the scale of the pictures, 1 or 255. Whole numbers come out rounded.

    Raises:
        ValueError: an unknown name or data set, a severity outside of 1, ..., 5, maximum <= 0. The transform raises it
            on pictures outside of [0, maximum], where their values are known, and where colours are needed on pictures
            that have neither one nor three channels.

    Example:
        >>> pictures = np.full((4, 32, 32, 3), 200, np.uint8)
        >>> pale = btl.data.corrupt("contrast", 3, maximum=255)
        >>> batch = pale(jax.random.key(0), btl.Batch(pictures, np.zeros(4, int)))
        >>> batch.inputs.shape, batch.inputs.dtype, int(batch.inputs[0, 0, 0, 0])
        ((4, 32, 32, 3), dtype('uint8'), 200)
    """
    check_arguments(corrupt, locals())
    if name not in _RECIPES:
        raise ValueError(f"name is {name!r}; give one of {', '.join(map(repr, CORRUPTIONS))}")
    if not 1 <= severity <= _NUM_SEVERITIES:
        raise ValueError(
            f"severity is {severity}; give 1 (mild) to {_NUM_SEVERITIES} (severe), and the pictures themselves for none"
        )
    if not isinstance(like, str) or like not in _SIDES:
        raise ValueError(f"like is {like!r}; give one of {', '.join(map(repr, _SIDES))}")
    if not 0 < maximum < float("inf"):
        raise ValueError(f"maximum is {maximum!r}; give the value of white, 1 or 255")
    return Corruption(name, int(severity), like, float(maximum))
