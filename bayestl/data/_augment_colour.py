"""Random brightness, contrast and saturation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from bayestl._arguments import check_arguments
from bayestl._types import Batch, Key
from bayestl.data._augment import number, pictures_of, replace_pictures

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


class ColorParameters(NamedTuple):
    """Factors for each of B pictures, 1 for no change; every field (B,)."""

    brightness: Float[Array, " batch"]
    contrast: Float[Array, " batch"]
    saturation: Float[Array, " batch"]


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast and saturation of every picture; made by :func:`color_jitter`."""

    brightness: float
    contrast: float
    saturation: float
    maximum: float

    def draw(self, key: Key, shape: Sequence[int]) -> ColorParameters:
        """Parameters for pictures of shape (B, height, width, channels)."""
        most = (self.brightness, self.contrast, self.saturation)
        return ColorParameters(
            *(
                jax.random.uniform(k, (shape[0],), jnp.float32, 1 - m, 1 + m)
                for k, m in zip(jax.random.split(key, 3), most, strict=True)
            )
        )

    def apply(
        self, parameters: ColorParameters, pictures: Num[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """The pictures under given factors, in float32."""
        brightness, contrast, saturation = (factor[:, None, None, None] for factor in parameters)
        pictures = self._clip(jnp.asarray(pictures, jnp.float32) * brightness)
        mean = _gray(pictures).mean((1, 2), keepdims=True)
        pictures = self._clip(mean + contrast * (pictures - mean))
        gray = _gray(pictures)
        return self._clip(gray + saturation * (pictures - gray))

    def _clip(self, pictures: jax.Array) -> jax.Array:
        return jnp.clip(pictures, 0, self.maximum)

    def __call__(self, key: Key, batch: Batch) -> Batch:
        check_arguments(ColorJitter.__call__, locals())
        pictures = pictures_of(batch)
        return replace_pictures(batch, self.apply(self.draw(key, pictures.shape), pictures))


def _gray(pictures: jax.Array) -> jax.Array:
    if pictures.shape[-1] == 1:
        return pictures
    if pictures.shape[-1] != 3:
        raise ValueError(
            f"the pictures have {pictures.shape[-1]} channels; colours are jittered in RGB or gray pictures"
        )
    # As a product with a vector, which compilers do several times faster than a sum over three numbers.
    return jnp.einsum("...c,c->...", pictures, jnp.array(_LUMA, jnp.float32), precision="highest")[..., None]


def color_jitter(
    *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, maximum: float = 255.0
) -> ColorJitter:
    """A transform that changes brightness, contrast and saturation of every picture by its own random factors.

    In this order, each followed by clipping to [0, maximum]: x becomes b x; then m + c (x - m) with m the mean gray of
    the picture; then g + s (x - g) with g the gray of the pixel. Gray is .299 R + .587 G + .114 B. Pictures come out
    as float32 on the same scale; those with one channel keep their (missing) saturation. In a ``compose``, put it
    before ``affine``: the other way round XLA repeats the resampling on CPUs, which takes two to three times as long.

    Args:
        brightness: b is drawn from [1 - brightness, 1 + brightness], in [0, 1].
        contrast: c, likewise.
        saturation: s, likewise.
        maximum: white on the scale of the pictures, 255 or 1.

    Raises:
        ValueError: a range outside of [0, 1], or maximum <= 0.

    Example:
        >>> jitter = btl.data.color_jitter(brightness=0.2, contrast=0.2, saturation=0.2)
        >>> data = btl.data.arrays(np.full((8, 4, 4, 3), 100, np.uint8), np.zeros(8, int))
        >>> colours = jitter(jax.random.key(0), data.gather(jnp.arange(8))).inputs
        >>> bool((colours.min() >= 80) & (colours.max() <= 120))
        True
    """
    check_arguments(color_jitter, locals())
    if not 0 < maximum < float("inf"):
        raise ValueError(f"maximum is {maximum!r}; give the value of white, 255 or 1")
    return ColorJitter(
        number("brightness", brightness, 0, 1, "shares"),
        number("contrast", contrast, 0, 1, "shares"),
        number("saturation", saturation, 0, 1, "shares"),
        float(maximum),
    )
