"""ResNet-18 and ResNet-50."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

from bayestl._arguments import check_arguments
from bayestl._types import DType, Key
from bayestl.pretrained._backbone import Backbone, Sequential, build
from bayestl.pretrained._layers import Layers, check_sizes, global_average, symmetric


class Stem(nnx.Module):
    """The 7 x 7 convolution and the pooling before the blocks: (B, H, W, 3) to (B, H / 4, W / 4, 64)."""

    def __init__(self, make: Layers):
        self.conv1 = make.conv(3, 64, 7, stride=2)
        self.bn1 = make.batch_norm(64)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=symmetric(1))


class Downsample(nnx.Module):
    """The shortcut of a block that changes the shape."""

    def __init__(self, make: Layers, inputs: int, outputs: int, stride: int):
        self.conv = make.conv(inputs, outputs, 1, stride)
        self.bn = make.batch_norm(outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bn(self.conv(x))


class BasicBlock(nnx.Module):
    """Two 3 x 3 convolutions."""

    def __init__(self, make: Layers, inputs: int, width: int, stride: int):
        self.conv1, self.bn1 = make.conv(inputs, width, 3, stride), make.batch_norm(width)
        self.conv2, self.bn2 = make.conv(width, width, 3), make.batch_norm(width)
        if stride != 1 or inputs != width:
            self.downsample = Downsample(make, inputs, width, stride)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nnx.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Bottleneck(nnx.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions, the stride in the 3 x 3 one, with four times the channels at the end."""

    def __init__(self, make: Layers, inputs: int, width: int, stride: int):
        self.conv1, self.bn1 = make.conv(inputs, width, 1), make.batch_norm(width)
        self.conv2, self.bn2 = make.conv(width, width, 3, stride), make.batch_norm(width)
        self.conv3, self.bn3 = make.conv(width, 4 * width, 1), make.batch_norm(4 * width)
        if stride != 1 or inputs != 4 * width:
            self.downsample = Downsample(make, inputs, 4 * width, stride)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nnx.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class _Size(NamedTuple):
    block: type[nnx.Module]
    expansion: int
    depths: Sequence[int]


def resnet18(
    key: Key, *, num_classes: int = 1000, include_top: bool = True, cut: str | None = None, dtype: DType | None = None
) -> Backbone:
    """ResNet-18 (He et al. 2015): 11.7 million parameters, features of 512 channels at stride 32.

    Stages ``stem``, ``layer1`` to ``layer4`` (64, 128, 256, 512 channels), ``pool``, ``head``. The published weights of
    torchvision and timm want RGB in [0, 1], minus (.485, .456, .406), divided by (.229, .224, .225), as (B, H, W, 3).
    :func:`load` fills them in by ``tables.RESNET18``.

    Args:
        key: of the initialisation.
        num_classes: outputs of the head, >= 1.
        include_top: with the head; without it the outputs are the features after the pooling, (B, 512).
        cut: the last stage to keep, for features from inside.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters are float32 and outputs at least that.

    Raises:
        ValueError: ``num_classes`` is not positive, or there is no stage ``cut``.

    Example:
        >>> def features(pictures):
        ...     return btl.pretrained.resnet18(jax.random.key(0), cut="layer3")(pictures)
        >>> jax.eval_shape(features, jnp.zeros((2, 64, 64, 3))).shape
        (2, 4, 4, 256)
    """
    check_arguments(resnet18, locals())
    return _resnet(key, _Size(BasicBlock, 1, (2, 2, 2, 2)), num_classes, include_top, cut, dtype)


def resnet50(
    key: Key, *, num_classes: int = 1000, include_top: bool = True, cut: str | None = None, dtype: DType | None = None
) -> Backbone:
    """ResNet-50 (He et al. 2015, stride in the 3 x 3 convolution): 25.6 million parameters, 2048 channels at stride 32.

    Stages ``stem``, ``layer1`` to ``layer4`` (256, 512, 1024, 2048 channels), ``pool``, ``head``. The published weights
    of torchvision and timm want RGB in [0, 1], minus (.485, .456, .406), divided by (.229, .224, .225), as
    (B, H, W, 3). :func:`load` fills them in by ``tables.RESNET50``.

    Args:
        key: of the initialisation.
        num_classes: outputs of the head, >= 1.
        include_top: with the head; without it the outputs are the features after the pooling, (B, 2048).
        cut: the last stage to keep, for features from inside.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters are float32 and outputs at least that.

    Raises:
        ValueError: ``num_classes`` is not positive, or there is no stage ``cut``.

    Example:
        >>> def features(pictures):
        ...     return btl.pretrained.resnet50(jax.random.key(0), include_top=False)(pictures)
        >>> jax.eval_shape(features, jnp.zeros((2, 64, 64, 3))).shape
        (2, 2048)
    """
    check_arguments(resnet50, locals())
    return _resnet(key, _Size(Bottleneck, 4, (3, 4, 6, 3)), num_classes, include_top, cut, dtype)


def _resnet(key: Key, size: _Size, num_classes: int, include_top: bool, cut: str | None, dtype: Any) -> Backbone:
    check_sizes(num_classes)
    make = Layers(nnx.Rngs(params=key), dtype)
    stages: dict[str, Callable[[], Any]] = {"stem": lambda: Stem(make)}
    inputs = 64
    for number, depth in enumerate(size.depths):
        width = 64 * 2**number
        stages[f"layer{number + 1}"] = _Layer(make, size, inputs, width, depth, 1 if number == 0 else 2)
        inputs = size.expansion * width
    stages["pool"] = lambda: global_average
    stages["head"] = lambda: make.linear(inputs, num_classes)
    return build(stages, include_top, cut)


class _Layer(NamedTuple):
    """Makes the blocks at one resolution, the first of which changes it."""

    make: Layers
    size: _Size
    inputs: int
    width: int
    depth: int
    stride: int

    def __call__(self) -> Sequential:
        outputs = self.size.expansion * self.width
        sizes = [(self.inputs, self.stride)] + [(outputs, 1)] * (self.depth - 1)
        block: Any = self.size.block
        return Sequential({str(n): block(self.make, inputs, self.width, s) for n, (inputs, s) in enumerate(sizes)})
