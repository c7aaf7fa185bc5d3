"""The layers that the backbones share, with the conventions of the networks' originals."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bayestl._arguments import check_arguments

_conv_kernel = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
_depthwise_kernel = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
_dense_kernel = nnx.initializers.lecun_normal()


class Layers(NamedTuple):
    """Makes layers that draw their parameters, float32, from ``rngs`` and compute in ``dtype``.

    Attributes:
        rngs: of the initialisation.
        dtype: of the computation; None: that of inputs and parameters together.
        epsilon: what batch normalisation adds to the variance.
        momentum: the share of the old running statistics in the new ones.
    """

    rngs: nnx.Rngs
    dtype: Any
    epsilon: float = 1e-5
    momentum: float = 0.9

    def conv(
        self, inputs: int, outputs: int, size: int, stride: int = 1, *, padding: Any = None, bias: bool = False
    ) -> nnx.Conv:
        """A convolution; by default with the same padding on all sides, which is not what "SAME" does at stride 2."""
        return nnx.Conv(
            inputs,
            outputs,
            (size, size),
            stride,
            padding=symmetric(size // 2) if padding is None else padding,
            use_bias=bias,
            dtype=self.dtype,
            kernel_init=_conv_kernel,
            rngs=self.rngs,
        )

    def depthwise(self, channels: int, size: int, stride: int, padding: Any) -> nnx.Conv:
        """A convolution of each channel by itself."""
        return nnx.Conv(
            channels,
            channels,
            (size, size),
            stride,
            padding=padding,
            feature_group_count=channels,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_depthwise_kernel,
            rngs=self.rngs,
        )

    def batch_norm(self, channels: int) -> nnx.BatchNorm:
        """Batch normalisation, which uses its running statistics until ``train()`` says otherwise."""
        return nnx.BatchNorm(
            channels,
            use_running_average=True,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            rngs=self.rngs,
        )

    def linear(self, inputs: int, outputs: int, kernel_init: Any = _dense_kernel) -> nnx.Linear:
        """A dense layer."""
        return nnx.Linear(inputs, outputs, dtype=self.dtype, kernel_init=kernel_init, rngs=self.rngs)

    def layer_norm(self, features: int, epsilon: float) -> nnx.LayerNorm:
        """Layer normalisation, with the variance as a mean of squared deviations."""
        return nnx.LayerNorm(features, epsilon=epsilon, use_fast_variance=False, dtype=self.dtype, rngs=self.rngs)


def symmetric(width: int) -> Any:
    """Padding of ``width`` on each side of height and width."""
    return ((width, width), (width, width))


def global_average(x: jax.Array) -> jax.Array:
    """Feature maps (B, height, width, C) averaged over the picture: (B, C).

    Example:
        >>> btl.pretrained.global_average(jnp.ones((5, 3, 3, 8))).shape
        (5, 8)
    """
    check_arguments(global_average, locals())
    return jnp.mean(x, axis=(1, 2))


def check_sizes(num_classes: int, **positive: int) -> None:
    """Raise when a size of a constructor is not a positive integer."""
    for name, value in {"num_classes": num_classes, **positive}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; give an integer >= 1")
