"""The ResNets for pictures of 32 x 32 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bayestl._arguments import check_arguments
from bayestl._types import DType, Key
from bayestl.pretrained._backbone import Backbone, Sequential, build
from bayestl.pretrained._layers import Layers, check_sizes, global_average


class Stem(nnx.Module):
    """The convolution before the blocks."""

    def __init__(self, make: Layers):
        self.conv1, self.bn1 = make.conv(3, 16, 3), make.batch_norm(16)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.bn1(self.conv1(x)))


class Block(nnx.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters (option A): every other pixel, new channels zero."""

    def __init__(self, make: Layers, inputs: int, width: int):
        self.stride, self.padding = (1, 0) if inputs == width else (2, (width - inputs) // 2)
        self.conv1, self.bn1 = make.conv(inputs, width, 3, self.stride), make.batch_norm(width)
        self.conv2, self.bn2 = make.conv(width, width, 3), make.batch_norm(width)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x[:, :: self.stride, :: self.stride]
        return nnx.relu(y + jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (self.padding, self.padding))))


def cifar_resnet20(
    key: Key, *, num_classes: int = 10, include_top: bool = True, cut: str | None = None, dtype: DType | None = None
) -> Backbone:
    """ResNet-20 for CIFAR (He et al. 2015, section 4.2, option A): 270,000 parameters, 64 channels at stride 4.

    Stages ``stem``, ``layer1`` to ``layer3`` (16, 32, 64 channels), ``pool``, ``head``. The published weights of
    pytorch_resnet_cifar10 want RGB in [0, 1], minus (.485, .456, .406), divided by (.229, .224, .225), as
    (B, 32, 32, 3). :func:`load` fills them in by ``tables.CIFAR_RESNET20``.

    Args:
        key: of the initialisation.
        num_classes: outputs of the head, >= 1.
        include_top: with the head; without it the outputs are the features after the pooling, (B, 64).
        cut: the last stage to keep, for features from inside.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters are float32 and outputs at least that.

    Raises:
        ValueError: ``num_classes`` is not positive, or there is no stage ``cut``.

    Example:
        >>> def logits(pictures):
        ...     return btl.pretrained.cifar_resnet20(jax.random.key(0))(pictures)
        >>> jax.eval_shape(logits, jnp.zeros((2, 32, 32, 3))).shape
        (2, 10)
    """
    check_arguments(cifar_resnet20, locals())
    return _cifar_resnet(key, 3, num_classes, include_top, cut, dtype)


def cifar_resnet56(
    key: Key, *, num_classes: int = 10, include_top: bool = True, cut: str | None = None, dtype: DType | None = None
) -> Backbone:
    """ResNet-56 for CIFAR (He et al. 2015, section 4.2, option A): 850,000 parameters, 64 channels at stride 4.

    As :func:`cifar_resnet20` with nine blocks in place of three at each resolution; ``tables.CIFAR_RESNET56``.

    Args:
        key: of the initialisation.
        num_classes: outputs of the head, >= 1.
        include_top: with the head; without it the outputs are the features after the pooling, (B, 64).
        cut: the last stage to keep, for features from inside.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters are float32 and outputs at least that.

    Raises:
        ValueError: ``num_classes`` is not positive, or there is no stage ``cut``.

    Example:
        >>> def features(pictures):
        ...     return btl.pretrained.cifar_resnet56(jax.random.key(0), cut="layer2")(pictures)
        >>> jax.eval_shape(features, jnp.zeros((2, 32, 32, 3))).shape
        (2, 16, 16, 32)
    """
    check_arguments(cifar_resnet56, locals())
    return _cifar_resnet(key, 9, num_classes, include_top, cut, dtype)


def _cifar_resnet(key: Key, depth: int, num_classes: int, include_top: bool, cut: str | None, dtype: Any) -> Backbone:
    check_sizes(num_classes)
    make = Layers(nnx.Rngs(params=key), dtype)

    def layer(inputs: int, width: int) -> Sequential:
        return Sequential({str(n): Block(make, inputs if n == 0 else width, width) for n in range(depth)})

    stages: dict[str, Callable[[], Any]] = {
        "stem": lambda: Stem(make),
        "layer1": lambda: layer(16, 16),
        "layer2": lambda: layer(16, 32),
        "layer3": lambda: layer(32, 64),
        "pool": lambda: global_average,
        "head": lambda: make.linear(64, num_classes),
    }
    return build(stages, include_top, cut)
