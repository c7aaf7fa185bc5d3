"""Random crops of padded pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from bayestl._arguments import check_arguments
from bayestl._types import Batch, Key
from bayestl.data._augment import pictures_of, replace_pictures
from bayestl.data._augment_warp import FillMode, check_fill

_PADS = {"nearest": "edge", "reflect": "symmetric", "wrap": "wrap"}


class CropParameters(NamedTuple):
    """The first row and column of each crop in the padded picture; each (B,)."""

    row: Int[Array, " batch"]
    column: Int[Array, " batch"]


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A random crop of every padded picture; made by :func:`random_crop`."""

    padding: int
    size: tuple[int, int] | None
    fill_mode: FillMode
    fill_value: float

    def draw(self, key: Key, shape: Sequence[int]) -> CropParameters:
        """Parameters for pictures of shape (B, height, width, channels)."""
        new = self._new_size(shape)
        last = [old + 2 * self.padding - size for old, size in zip(shape[1:3], new, strict=True)]
        keys = jax.random.split(key)
        return CropParameters(
            *(jax.random.randint(k, (shape[0],), 0, most + 1) for k, most in zip(keys, last, strict=True))
        )

    def apply(
        self, parameters: CropParameters, pictures: Num[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width channels"]:
        """The crops at given places, in float32."""
        size = (*self._new_size(pictures.shape), pictures.shape[3])
        pads = ((0, 0), (self.padding, self.padding), (self.padding, self.padding), (0, 0))
        values = jnp.asarray(pictures, jnp.float32)
        if self.fill_mode == "constant":
            padded = jnp.pad(values, pads, constant_values=self.fill_value)
        else:
            padded = jnp.pad(values, pads, mode=_PADS[self.fill_mode])

        def crop(picture: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(picture, (row, column, 0), size)

        return jax.vmap(crop)(padded, parameters.row, parameters.column)

    def __call__(self, key: Key, batch: Batch) -> Batch:
        check_arguments(RandomCrop.__call__, locals())
        pictures = pictures_of(batch)
        return replace_pictures(batch, self.apply(self.draw(key, pictures.shape), pictures))

    def _new_size(self, shape: Sequence[int]) -> tuple[int, int]:
        new = (shape[1], shape[2]) if self.size is None else self.size
        if new[0] > shape[1] + 2 * self.padding or new[1] > shape[2] + 2 * self.padding:
            raise ValueError(
                f"size {new} is larger than pictures of {shape[1]} x {shape[2]} with padding={self.padding}; "
                "give a smaller size or more padding"
            )
        return new


def random_crop(
    padding: int = 0,
    *,
    size: tuple[int, int] | None = None,
    fill_mode: FillMode = "constant",
    fill_value: float = 0.0,
) -> RandomCrop:
    """A transform that pads every picture on all sides and cuts a window out of it at a random place.

    With ``padding=4`` on 32 x 32 pictures, and flips, this is the usual augmentation for CIFAR. All places are equally
    likely. Pictures come out as float32 on the same scale.

    Args:
        padding: pixels on every side, >= 0.
        size: (height, width) of the crops; that of the pictures by default.
        fill_mode: what the padding shows: ``"constant"`` (``fill_value``), ``"nearest"`` (the border), ``"reflect"``
            (the border pixel twice), or ``"wrap"`` (the picture again).
        fill_value: on the scale of the pictures.

    Raises:
        ValueError: negative padding, or crops that are larger than the padded pictures.

    Example:
        >>> crop = btl.data.random_crop(padding=4)
        >>> data = btl.data.arrays(np.ones((8, 32, 32, 3), np.uint8), np.zeros(8, int))
        >>> crop(jax.random.key(0), data.gather(jnp.arange(8))).inputs.shape
        (8, 32, 32, 3)
    """
    check_arguments(random_crop, locals(), skip=("padding",))
    check_fill(fill_mode, fill_value)
    if type(padding) is not int or padding < 0:
        raise ValueError(f"padding is {padding!r}; give a whole number of pixels, 0 for none")
    if size is not None and not (len(size) == 2 and all(type(n) is int and n >= 1 for n in size)):
        raise ValueError(f"size is {size!r}; give (height, width) in pixels")
    return RandomCrop(padding, None if size is None else (size[0], size[1]), fill_mode, float(fill_value))
