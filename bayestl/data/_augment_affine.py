"""Rotation, shift, shear, zoom and flips as one affine map of each picture, resampled once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from bayestl._arguments import check_arguments
from bayestl._types import Batch, Key
from bayestl.data._augment import number, pictures_of, replace_pictures
from bayestl.data._augment_warp import FillMode, check_fill, warp


class AffineParameters(NamedTuple):
    """What is done to each of B pictures; every field (B,).

    Attributes:
        rotation: degrees.
        width_shift: fraction of the width.
        height_shift: fraction of the height.
        shear: degrees.
        column_zoom: factor; above 1 the picture shrinks along its width.
        row_zoom: factor; above 1 the picture shrinks along its height.
        horizontal_flip: left and right exchanged.
        vertical_flip: top and bottom exchanged.
    """

    rotation: Float[Array, " batch"]
    width_shift: Float[Array, " batch"]
    height_shift: Float[Array, " batch"]
    shear: Float[Array, " batch"]
    column_zoom: Float[Array, " batch"]
    row_zoom: Float[Array, " batch"]
    horizontal_flip: Bool[Array, " batch"]
    vertical_flip: Bool[Array, " batch"]


@dataclasses.dataclass(frozen=True)
class Affine:
    """A random affine map of every picture; made by :func:`affine`."""

    rotation: float
    width_shift: float
    height_shift: float
    shear: float
    zoom: tuple[float, float]
    horizontal_flip: bool
    vertical_flip: bool
    fill_mode: FillMode
    fill_value: float

    def draw(self, key: Key, shape: Sequence[int]) -> AffineParameters:
        """Parameters for pictures of shape (B, height, width, channels)."""
        keys, num = jax.random.split(key, 8), (shape[0],)

        def uniform(key: Key, low: float, high: float) -> jax.Array:
            return jax.random.uniform(key, num, jnp.float32, low, high)

        half = (self.rotation, self.width_shift, self.height_shift, self.shear)
        low, high = self.zoom
        return AffineParameters(
            *(uniform(key, -most, most) for key, most in zip(keys[:4], half, strict=True)),
            *(uniform(key, low, high) for key in keys[4:6]),
            *(
                jax.random.bernoulli(key, 0.5 * flips, num)
                for key, flips in zip(keys[6:], (self.horizontal_flip, self.vertical_flip), strict=True)
            ),
        )

    def matrix(self, parameters: AffineParameters, height: int, width: int) -> Float[Array, "batch 2 3"]:
        """The map M from a place in the new picture to the place in the old one that is shown there.

        ``(row, column)_old = M (row, column, 1)_new``, in pixels from the centre of the first.
        """
        p = parameters
        angle, shear = jnp.deg2rad(p.rotation), jnp.deg2rad(p.shear)
        one, zero = jnp.ones_like(angle), jnp.zeros_like(angle)
        # In (column, row) from the centre of the picture: rotation, shift, shear, zoom, flip; the last acts first.
        rotation = _two_by_two(jnp.cos(angle), -jnp.sin(angle), jnp.sin(angle), jnp.cos(angle))
        shearing = _two_by_two(one, -jnp.sin(shear), zero, jnp.cos(shear))
        signs = jnp.stack([1 - 2 * p.horizontal_flip, 1 - 2 * p.vertical_flip], -1)
        stretch = jnp.stack([p.column_zoom, p.row_zoom], -1) * signs
        shift = jnp.stack([p.width_shift * width, p.height_shift * height], -1)
        linear = jnp.einsum("nij,njk,nk->nik", rotation, shearing, stretch, precision="highest")
        moved = jnp.einsum("nij,nj->ni", rotation, shift, precision="highest")
        centre = jnp.array([(width - 1) / 2, (height - 1) / 2], jnp.float32)
        offset = centre + moved - jnp.einsum("nij,j->ni", linear, centre, precision="highest")
        return jnp.concatenate([linear[:, ::-1, ::-1], offset[:, ::-1, None]], -1)  # in (row, column)

    def apply(
        self, parameters: AffineParameters, pictures: Num[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """The pictures under given parameters, in float32."""
        height, width = pictures.shape[1:3]
        matrix = self.matrix(parameters, height, width)[:, :, :, None, None]
        row, column = jnp.arange(height, dtype=jnp.float32)[:, None], jnp.arange(width, dtype=jnp.float32)
        rows, columns = (matrix[:, k, 0] * row + matrix[:, k, 1] * column + matrix[:, k, 2] for k in (0, 1))
        return warp(jnp.asarray(pictures, jnp.float32), rows, columns, self.fill_mode, self.fill_value)

    def __call__(self, key: Key, batch: Batch) -> Batch:
        check_arguments(Affine.__call__, locals())
        pictures = pictures_of(batch)
        return replace_pictures(batch, self.apply(self.draw(key, pictures.shape), pictures))


def affine(
    *,
    rotation: float = 0.0,
    width_shift: float = 0.0,
    height_shift: float = 0.0,
    shear: float = 0.0,
    zoom: float | tuple[float, float] = 0.0,
    horizontal_flip: bool = False,
    vertical_flip: bool = False,
    fill_mode: FillMode = "nearest",
    fill_value: float = 0.0,
) -> Affine:
    """A transform that turns, shifts, shears, zooms and flips every picture by its own random amounts.

    For ``fit(..., transform=...)``; it runs inside the compiled step. All is one affine map about the centre,
    resampled once and bilinearly. In (column, row) coordinates from the centre, the new picture shows at x what the
    old one has at

        R(rotation) (S(shear) Z(zoom) F(flips) x + shift),   S = [[1, -sin shear], [0, cos shear]]

    which is that of Keras' ``ImageDataGenerator``. Differences: there (in Keras 3) the range of the height acts on
    columns and that of the width on rows, and pictures that are not square do not turn about their centre.

    Pictures are (B, height, width, channels) of any numeric dtype and come out as float32 on the same scale.

    Args:
        rotation: drawn from [-rotation, rotation], degrees in [0, 180].
        width_shift: drawn from [-width_shift, width_shift], a fraction of the width in [0, 1].
        height_shift: the same, of the height.
        shear: drawn from [-shear, shear], **degrees** in [0, 89] (so 0.2 is next to nothing).
        zoom: rows and columns apart from [1 - zoom, 1 + zoom], zoom in [0, 1), or from a pair (low, high) > 0; above
            1 the picture shrinks.
        horizontal_flip: exchange left and right in every second picture.
        vertical_flip: exchange top and bottom in every second picture.
        fill_mode: what is seen outside of a picture, by SciPy's names: ``"nearest"`` (its border), ``"constant"``
            (``fill_value``), ``"reflect"`` or ``"wrap"``.
        fill_value: on the scale of the pictures.

    Raises:
        ValueError: a range outside of these bounds.

    Example:
        >>> augment = btl.data.affine(
        ...     rotation=40, width_shift=0.2, height_shift=0.2, shear=0.2, zoom=0.2, horizontal_flip=True
        ... )
        >>> data = btl.data.arrays(np.arange(8 * 64).reshape(8, 8, 8, 1).astype(np.uint8), np.zeros(8, int))
        >>> batch = augment(jax.random.key(0), data.gather(jnp.arange(8)))
        >>> batch.inputs.shape, batch.inputs.dtype
        ((8, 8, 8, 1), dtype('float32'))
    """
    check_arguments(affine, locals(), skip=("rotation",))
    check_fill(fill_mode, fill_value)
    return Affine(
        number("rotation", rotation, 0, 180, "degrees"),
        number("width_shift", width_shift, 0, 1, "widths"),
        number("height_shift", height_shift, 0, 1, "heights"),
        number("shear", shear, 0, 89, "degrees"),
        _zoom(zoom),
        bool(horizontal_flip),
        bool(vertical_flip),
        fill_mode,
        float(fill_value),
    )


def _zoom(zoom: float | tuple[float, float]) -> tuple[float, float]:
    if isinstance(zoom, int | float) and not isinstance(zoom, bool) and 0 <= zoom < 1:
        return 1.0 - zoom, 1.0 + zoom
    if isinstance(zoom, tuple | list) and len(zoom) == 2 and 0 < zoom[0] <= zoom[1] < float("inf"):
        return float(zoom[0]), float(zoom[1])
    raise ValueError(f"zoom is {zoom!r}; give a number in [0, 1), or a pair (low, high) with 0 < low <= high")


def _two_by_two(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
    return jnp.stack([jnp.stack([a, b], -1), jnp.stack([c, d], -1)], -2)
