"""Vision transformers with patches of 16 x 16 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bayestl._arguments import check_arguments
from bayestl._types import DType, Key
from bayestl.pretrained._backbone import Backbone, build
from bayestl.pretrained._layers import Layers, check_sizes
from bayestl.pretrained._transformer import PreNormBlock, TransformerSize, small_kernel

_PATCH = 16


class Embed(nnx.Module):
    """Patches as tokens, the class token before them, and their positions: (B, H, W, 3) to (B, 1 + HW / 256, width)."""

    def __init__(self, make: Layers, width: int, image_size: int):
        self.image_size = image_size
        tokens = 1 + (image_size // _PATCH) ** 2
        self.patches = make.conv(3, width, _PATCH, _PATCH, padding="VALID", bias=True)
        self.cls_token = nnx.Param(jnp.zeros((1, 1, width), jnp.float32))
        self.pos_embed = nnx.Param(small_kernel(make.rngs.params(), (1, tokens, width), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(
                f"inputs have shape {x.shape}; this network takes pictures of {self.image_size} x {self.image_size} "
                "pixels: resize them, or make the network with another image_size"
            )
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        first = jnp.broadcast_to(self.cls_token[...], (x.shape[0], 1, x.shape[-1]))
        return jnp.concatenate([first.astype(x.dtype), x], axis=1) + self.pos_embed[...].astype(x.dtype)


class Pool(nnx.Module):
    """The class token, normalised: (B, tokens, width) to (B, width)."""

    def __init__(self, make: Layers, width: int):
        self.norm = make.layer_norm(width, 1e-6)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(x[:, 0])


def vit_ti16(
    key: Key,
    *,
    num_classes: int = 1000,
    image_size: int = 224,
    include_top: bool = True,
    cut: str | None = None,
    dtype: DType | None = None,
) -> Backbone:
    """ViT-Ti/16 (Dosovitskiy et al. 2020; Touvron et al. 2020): 5.7 million parameters, 192 features.

    Stages ``embed``, ``block0`` to ``block11`` (each (B, tokens, 192)), ``pool`` (the class token), ``head``.
    timm's published weights (``vit_tiny_patch16_*``) want RGB in [-1, 1] as (B, image_size, image_size, 3), those with
    ``deit`` in their name [0, 1] minus (.485, .456, .406), divided by (.229, .224, .225). :func:`load` fills them in by
    ``tables.VIT_TI16``.

    Args:
        key: of the initialisation.
        num_classes: outputs of the head, >= 1.
        image_size: height and width of the pictures, a multiple of 16.
        include_top: with the head; without it the outputs are the features of the class token, (B, 192).
        cut: the last stage to keep, for features from inside.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters are float32 and outputs at least that.

    Raises:
        ValueError: a size that is not positive or no multiple of 16, no stage ``cut``; when called: other pictures.

    Example:
        >>> def logits(pictures):
        ...     return btl.pretrained.vit_ti16(jax.random.key(0), num_classes=10, image_size=64)(pictures)
        >>> jax.eval_shape(logits, jnp.zeros((2, 64, 64, 3))).shape
        (2, 10)
    """
    check_arguments(vit_ti16, locals())
    return _vit(key, _size(12, 192, 3), num_classes, image_size, include_top, cut, dtype)


def vit_b16(
    key: Key,
    *,
    num_classes: int = 1000,
    image_size: int = 224,
    include_top: bool = True,
    cut: str | None = None,
    dtype: DType | None = None,
) -> Backbone:
    """ViT-B/16 (Dosovitskiy et al. 2020): 86.6 million parameters, 768 features.

    As :func:`vit_ti16` with 768 in place of 192 features; timm's ``vit_base_patch16_*`` by ``tables.VIT_B16``.

    Args:
        key: of the initialisation.
        num_classes: outputs of the head, >= 1.
        image_size: height and width of the pictures, a multiple of 16.
        include_top: with the head; without it the outputs are the features of the class token, (B, 768).
        cut: the last stage to keep, for features from inside.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters are float32 and outputs at least that.

    Raises:
        ValueError: a size that is not positive or no multiple of 16, no stage ``cut``; when called: other pictures.

    Example:
        >>> def features(pictures):
        ...     return btl.pretrained.vit_b16(jax.random.key(0), cut="block5")(pictures)
        >>> jax.eval_shape(features, jnp.zeros((2, 224, 224, 3))).shape
        (2, 197, 768)
    """
    check_arguments(vit_b16, locals())
    return _vit(key, _size(12, 768, 12), num_classes, image_size, include_top, cut, dtype)


def _size(depth: int, width: int, heads: int) -> TransformerSize:
    return TransformerSize(depth, width, heads, hidden=4 * width, epsilon=1e-6)


def _vit(
    key: Key, size: TransformerSize, num_classes: int, image_size: int, include_top: bool, cut: str | None, dtype: Any
) -> Backbone:
    check_sizes(num_classes, image_size=image_size)
    if image_size % _PATCH:
        raise ValueError(f"image_size is {image_size}; give a multiple of {_PATCH}, the size of a patch")
    make = Layers(nnx.Rngs(params=key), dtype)
    stages: dict[str, Callable[[], Any]] = {"embed": lambda: Embed(make, size.width, image_size)}
    stages |= {f"block{n}": lambda: PreNormBlock(make, size) for n in range(size.depth)}
    stages["pool"] = lambda: Pool(make, size.width)
    stages["head"] = lambda: make.linear(size.width, num_classes, small_kernel)
    return build(stages, include_top, cut)
