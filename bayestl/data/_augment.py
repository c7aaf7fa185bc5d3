"""What all transforms of pictures share; doing several after each other; normalisation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from bayestl._arguments import check_arguments
from bayestl._types import Batch, Key

Transform = Callable[[Key, Batch], Batch]
"""``(key, batch) -> batch``; runs inside the compiled step of a fit."""


def pictures_of(batch: Batch) -> Num[Array, "batch height width channels"]:
    """The pictures of a batch.

    Raises:
        TypeError: the inputs are not one array.
        ValueError: they do not have the axes batch, height, width and channels.
    """
    pictures = batch.inputs
    if not hasattr(pictures, "ndim"):
        raise TypeError(
            f"inputs is a {type(pictures).__name__}; pictures are one array (B, height, width, channels). For a tree, "
            "write a transform(key, batch) that calls this one on the batch of its pictures"
        )
    if pictures.ndim != 4:
        raise ValueError(
            f"inputs has shape {pictures.shape}; pictures are (B, height, width, channels), with one channel where "
            "they are gray: add it with pictures[..., None]"
        )
    return pictures


def replace_pictures(batch: Batch, pictures: jax.Array) -> Batch:
    """The batch with other pictures; targets and weights are left as they are."""
    return batch._replace(inputs=pictures)


def number(name: str, value: Any, low: float, high: float, unit: str) -> float:
    """``value`` as a float.

    Raises:
        ValueError: it does not lie in [low, high].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; give a number of {unit} in [{low:g}, {high:g}], 0 for none")
    return float(value)


@dataclasses.dataclass(frozen=True)
class Compose:
    """Transforms after each other; made by :func:`compose`."""

    transforms: tuple[Transform, ...]

    def __call__(self, key: Key, batch: Batch) -> Batch:
        check_arguments(Compose.__call__, locals())
        for place, transform in enumerate(self.transforms):
            batch = transform(jax.random.fold_in(key, place), batch)
        return batch


def compose(*transforms: Transform) -> Compose:
    """Transforms after each other, each with a key of its own.

    Args:
        transforms: functions ``(key, batch) -> batch``, the first to be applied first. Transform k gets
            ``fold_in(key, k)``.

    Raises:
        TypeError: one of them cannot be called.

    Example:
        >>> transform = btl.data.compose(
        ...     btl.data.affine(rotation=40, zoom=0.2, horizontal_flip=True),
        ...     btl.data.normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ... )
        >>> data = btl.data.arrays(np.full((8, 16, 16, 3), 255, np.uint8), np.zeros(8, int))
        >>> batch = transform(jax.random.key(0), data.gather(jnp.arange(4)))
        >>> batch.inputs.shape, batch.inputs.dtype
        ((4, 16, 16, 3), dtype('float32'))
    """
    check_arguments(compose, locals())
    for place, transform in enumerate(transforms):
        if not callable(transform):
            raise TypeError(f"transform {place} is a {type(transform).__name__}; give functions (key, batch) -> batch")
    return Compose(tuple(transforms))


@dataclasses.dataclass(frozen=True)
class Normalize:
    """(scale x - mean) / std for every channel; made by :func:`normalize`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float

    def apply(self, pictures: Num[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Pictures as the network wants them: the same at training and at test time."""
        channels, given = jnp.shape(pictures)[-1], max(len(self.mean), len(self.std))
        if given not in (1, channels):
            raise ValueError(f"mean and std are for {given} channels, the pictures have {channels}")
        # One multiplication and one addition, with the constants worked out in double precision.
        slope = [self.scale / s for s in self.std]
        shift = [-m / s for m, s in zip(_spread(self.mean, given), _spread(self.std, given), strict=True)]
        return jnp.asarray(pictures, jnp.float32) * jnp.array(slope, jnp.float32) + jnp.array(shift, jnp.float32)

    def __call__(self, key: Key | None, batch: Batch) -> Batch:
        check_arguments(Normalize.__call__, locals())
        return replace_pictures(batch, self.apply(pictures_of(batch)))


def normalize(mean: float | Sequence[float], std: float | Sequence[float], *, scale: float = 1 / 255) -> Normalize:
    """Pictures on the scale that a network was trained on; draws nothing, and belongs into the test as well.

    (scale x - mean) / std, channel by channel, in float32. The default ``scale`` takes pictures with values from 0 to
    255 to [0, 1], where published means and standard deviations live; ``normalize(0.5, 0.5)`` gives [-1, 1].

    Args:
        mean: after scaling, one number or one for each channel.
        std: likewise, > 0.
        scale: what the values are multiplied by first; 1 where they already lie in [0, 1].

    Raises:
        ValueError: values that are not finite, a standard deviation <= 0, or lengths that differ.

    Example:
        >>> to_unit = btl.data.normalize(0.5, 0.5)
        >>> pictures = np.array([0, 127.5, 255]).reshape(1, 1, 3, 1)
        >>> to_unit.apply(pictures).ravel().tolist()
        [-1.0, 0.0, 1.0]
    """
    check_arguments(normalize, locals())
    means, stds = _channels("mean", mean), _channels("std", std)
    if min(stds) <= 0:
        raise ValueError(f"std is {std!r}; give numbers > 0")
    if len(means) != len(stds) and 1 not in (len(means), len(stds)):
        raise ValueError(
            f"mean has {len(means)} numbers and std {len(stds)}; give one for each channel, or one for all"
        )
    if not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"scale is {scale!r}; give a number > 0, such as 1 / 255 or 1")
    return Normalize(means, stds, float(scale))


def _channels(name: str, values: float | Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(float(v) for v in values) if isinstance(values, Sequence) else (float(values),)
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} is {values!r}; give finite numbers, one for each channel, or one for all")
    return numbers


def _spread(values: tuple[float, ...], length: int) -> tuple[float, ...]:
    return values * length if len(values) == 1 else values
