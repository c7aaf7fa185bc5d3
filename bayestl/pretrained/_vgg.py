"""VGG-16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bayestl._arguments import check_arguments
from bayestl._types import DType, Key
from bayestl.pretrained._backbone import Backbone, build
from bayestl.pretrained._layers import Layers, check_sizes
from bayestl.pretrained._layouts import VGG16_DEPTHS

_WIDTHS = (64, 128, 256, 512, 512)


class Block(nnx.Module):
    """3 x 3 convolutions ``conv1``, ``conv2``, ... and 2 x 2 pooling."""

    def __init__(self, make: Layers, inputs: int, width: int, depth: int):
        self.depth = depth
        for n in range(1, depth + 1):
            setattr(self, f"conv{n}", make.conv(inputs if n == 1 else width, width, 3, bias=True))

    def __call__(self, x: jax.Array) -> jax.Array:
        for n in range(1, self.depth + 1):
            x = nnx.relu(getattr(self, f"conv{n}")(x))
        return nnx.max_pool(x, (2, 2), strides=(2, 2))


class Dense(nnx.Module):
    """Two dense layers of width 4096 with dropout, on a map averaged to 7 x 7 pixels."""

    def __init__(self, make: Layers, rngs: nnx.Rngs):
        self.fc1, self.fc2 = make.linear(512 * 7 * 7, 4096), make.linear(4096, 4096)
        self.dropout1, self.dropout2 = (nnx.Dropout(0.5, deterministic=True, rngs=rngs) for _ in range(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = averaged_to(x, 7).reshape(x.shape[0], -1)
        x = self.dropout1(nnx.relu(self.fc1(x)))
        return self.dropout2(nnx.relu(self.fc2(x)))


def vgg16(
    key: Key, *, num_classes: int = 1000, include_top: bool = True, cut: str | None = None, dtype: DType | None = None
) -> Backbone:
    """VGG-16 (Simonyan and Zisserman 2014): 138 million parameters, 14.7 of them before the dense layers.

    Stages ``block1`` to ``block5`` (64, 128, 256, 512, 512 channels, each ending with its pooling), ``dense`` (4096
    features), ``head``. Pictures of other sizes than 224 are averaged to 7 x 7 pixels before the dense layers, as
    torchvision does.

    The published weights of torchvision and timm want RGB in [0, 1], minus (.485, .456, .406), divided by (.229, .224,
    .225); those of Keras want BGR in [0, 255], minus (103.939, 116.779, 123.68); both as (B, H, W, 3). :func:`load`
    fills them in by ``tables.VGG16`` and ``tables.VGG16_KERAS``.

    Args:
        key: of the initialisation.
        num_classes: outputs of the head, >= 1.
        include_top: with the dense layers and the head; without them the outputs are feature maps at stride 32,
            (B, H / 32, W / 32, 512).
        cut: the last stage to keep, for features from inside.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters are float32 and outputs at least that.

    Raises:
        ValueError: ``num_classes`` is not positive, or there is no stage ``cut``.

    Example:
        >>> def features(pictures):
        ...     return btl.pretrained.vgg16(jax.random.key(0), include_top=False)(pictures)
        >>> jax.eval_shape(features, jnp.zeros((2, 150, 150, 3))).shape
        (2, 4, 4, 512)
    """
    check_arguments(vgg16, locals())
    check_sizes(num_classes)
    initial, noise = jax.random.split(key)
    make = Layers(nnx.Rngs(params=initial), dtype)
    stages: dict[str, Callable[[], Any]] = {}
    inputs = 3
    for number, (width, depth) in enumerate(zip(_WIDTHS, VGG16_DEPTHS, strict=True), start=1):
        stages[f"block{number}"] = lambda c=inputs, w=width, d=depth: Block(make, c, w, d)
        inputs = width
    stages["dense"] = lambda: Dense(make, nnx.Rngs(dropout=noise))
    stages["head"] = lambda: make.linear(4096, num_classes)
    return build(stages, include_top, cut, top=("dense", "head"))


def averaged_to(x: jax.Array, size: int) -> jax.Array:
    """Maps (B, height, width, C) averaged over windows that cover them: (B, size, size, C).

    Window i covers rows floor(i height / size) to ceil((i + 1) height / size), and columns likewise.
    """
    if x.shape[1:3] == (size, size):
        return x
    rows, columns = (jnp.asarray(_windows(length, size), x.dtype) for length in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)


def _windows(length: int, size: int) -> np.ndarray:
    weights = np.zeros((size, length))
    for i in range(size):
        start, stop = i * length // size, -(-(i + 1) * length // size)
        weights[i, start:stop] = 1 / (stop - start)
    return weights
