"""MobileNet v1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from bayestl._arguments import check_arguments
from bayestl._types import DType, Key
from bayestl.pretrained._backbone import Backbone, build
from bayestl.pretrained._layers import Layers, check_sizes, global_average

# Of each of the 13 separable convolutions: channels after it, stride.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
# At stride 2 one row and one column of zeros after the picture, whatever its size.
_AFTER = ((0, 1), (0, 1))


class ConvNorm(nnx.Module):
    """A convolution, batch normalisation and min(max(x, 0), 6)."""

    def __init__(self, conv: nnx.Conv, bn: nnx.BatchNorm):
        self.conv, self.bn = conv, bn

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu6(self.bn(self.conv(x)))


def mobilenet(
    key: Key, *, num_classes: int = 1000, include_top: bool = True, cut: str | None = None, dtype: DType | None = None
) -> Backbone:
    """MobileNet v1 of width 1 (Howard et al. 2017): 4.2 million parameters, 1024 channels at stride 32.

    Stages ``conv1``, then ``conv_dw_1``, ``conv_pw_1``, ..., ``conv_dw_13``, ``conv_pw_13``, each with its batch
    normalisation and activation, ``pool``, ``head``. The published weights of Keras want RGB in [-1, 1] as
    (B, H, W, 3). :func:`load` fills them in by ``tables.MOBILENET``. The original's dropout of rate 0.001 before the
    head is left out.

    Args:
        key: of the initialisation.
        num_classes: outputs of the head, logits, >= 1.
        include_top: with the head; without it the outputs are the features after the pooling, (B, 1024).
        cut: the last stage to keep, for features from inside.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters are float32 and outputs at least that.

    Raises:
        ValueError: ``num_classes`` is not positive, or there is no stage ``cut``.

    Example:
        >>> def features(pictures):
        ...     return btl.pretrained.mobilenet(jax.random.key(0), cut="conv_pw_12")(pictures)
        >>> jax.eval_shape(features, jnp.zeros((2, 96, 96, 3))).shape
        (2, 3, 3, 1024)
    """
    check_arguments(mobilenet, locals(), skip=("num_classes",))
    check_sizes(num_classes)
    make = Layers(nnx.Rngs(params=key), dtype, epsilon=1e-3, momentum=0.99)
    stages: dict[str, Callable[[], Any]] = {
        "conv1": lambda: ConvNorm(make.conv(3, 32, 3, 2, padding="SAME"), make.batch_norm(32))
    }
    inputs = 32
    for number, (outputs, stride) in enumerate(_BLOCKS, start=1):
        stages[f"conv_dw_{number}"] = lambda c=inputs, s=stride: _depthwise(make, c, s)
        stages[f"conv_pw_{number}"] = lambda c=inputs, d=outputs: ConvNorm(make.conv(c, d, 1), make.batch_norm(d))
        inputs = outputs
    stages["pool"] = lambda: global_average
    stages["head"] = lambda: make.linear(1024, num_classes)
    return build(stages, include_top, cut)


def _depthwise(make: Layers, channels: int, stride: int) -> ConvNorm:
    return ConvNorm(make.depthwise(channels, 3, stride, "SAME" if stride == 1 else _AFTER), make.batch_norm(channels))
