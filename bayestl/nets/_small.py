"""Two small networks, for demos, tests and benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl._arguments import check_arguments
from bayestl._types import Key, Net, Params
from bayestl.nets._function import from_function

Activation = Callable[[Array], Array]

_hidden_kernel = jax.nn.initializers.he_normal()
_head_kernel = jax.nn.initializers.lecun_normal()


@dataclasses.dataclass(frozen=True)
class _MLP:
    activation: Activation

    def __call__(self, params: Params, inputs: Float[Array, "batch ..."]) -> Float[Array, "batch outputs"]:
        x = inputs.reshape(inputs.shape[0], -1).astype(params["head"]["kernel"].dtype)
        for number in range(len(params) - 1):
            x = self.activation(_dense(params[f"dense_{number}"], x))
        return _dense(params["head"], x)


@dataclasses.dataclass(frozen=True)
class _ConvNet:
    activation: Activation

    def __call__(
        self, params: Params, inputs: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        x = inputs.astype(params["head"]["kernel"].dtype)
        for number in range(len(params) - 1):
            x = _halved(self.activation(_conv(params[f"conv_{number}"], x)))
        return _dense(params["head"], x.mean(axis=(1, 2)))


def mlp(key: Key, sizes: Sequence[int], activation: Activation = jax.nn.relu) -> Net:
    """A multilayer perceptron with parameters ``dense_0``, ``dense_1``, ... and ``head``.

    Kernels start He-normal (variance 2 / fan-in, truncated at two standard deviations) in hidden layers and
    LeCun-normal (1 / fan-in) in the head; biases start at 0.

    Args:
        key: of the initialisation.
        sizes: input, hidden and output sizes, each >= 1; at least two. Inputs (B, ...) are flattened to (B, sizes[0]).
        activation: elementwise, after every hidden layer.

    Raises:
        ValueError: fewer than two sizes, or one that is not positive.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (64, 32, 10))
        >>> btl.tree.paths(net.params)
        ['dense_0/bias', 'dense_0/kernel', 'head/bias', 'head/kernel']
        >>> net(net.params, jnp.ones((5, 8, 8))).shape
        (5, 10)
    """
    check_arguments(mlp, locals())
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes is {tuple(sizes)}; give input, hidden and output sizes, at least two, each >= 1")
    keys = jax.random.split(key, len(sizes) - 1)
    params = {
        f"dense_{number}": _layer(keys[number], (sizes[number], sizes[number + 1]), _hidden_kernel)
        for number in range(len(sizes) - 2)
    }
    params["head"] = _layer(keys[-1], (sizes[-2], sizes[-1]), _head_kernel)
    return from_function(_MLP(activation), params)


def conv_net(
    key: Key,
    input_shape: Sequence[int],
    channels: Sequence[int],
    num_classes: int,
    activation: Activation = jax.nn.relu,
) -> Net:
    """A convolutional network with parameters ``conv_0``, ``conv_1``, ... and ``head``.

    Each block is a 3 x 3 convolution, the activation and 2 x 2 average pooling; the head is linear in the mean over
    what is left of the picture. Kernels start He-normal in blocks and LeCun-normal in the head; biases start at 0.

    Args:
        key: of the initialisation.
        input_shape: (height, width, channels) of one picture; inputs are (B, height, width, channels).
        channels: output channels of each block, each >= 1; at least one.
        num_classes: number of outputs, >= 1.
        activation: elementwise, after every convolution.

    Raises:
        ValueError: sizes that are not positive, or pictures too small for so many blocks.

    Example:
        >>> net = btl.nets.conv_net(jax.random.key(0), (8, 8, 1), (16, 32), num_classes=10)
        >>> net(net.params, jnp.ones((5, 8, 8, 1))).shape
        (5, 10)
    """
    check_arguments(conv_net, locals())
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"input_shape is {tuple(input_shape)}; give (height, width, channels), each >= 1")
    if not channels or min(channels) < 1 or num_classes < 1:
        raise ValueError(
            f"channels is {tuple(channels)} and num_classes {num_classes}; give at least one block, each number >= 1"
        )
    if min(input_shape[:2]) < 2 ** len(channels):
        raise ValueError(
            f"input_shape {tuple(input_shape)} is too small for {len(channels)} blocks, each of which halves it; "
            f"give fewer channels, or pictures of at least {2 ** len(channels)} x {2 ** len(channels)}"
        )
    keys = jax.random.split(key, len(channels) + 1)
    widths = [input_shape[2], *channels]
    params = {
        f"conv_{number}": _layer(keys[number], (3, 3, widths[number], widths[number + 1]), _hidden_kernel)
        for number in range(len(channels))
    }
    params["head"] = _layer(keys[-1], (widths[-1], num_classes), _head_kernel)
    return from_function(_ConvNet(activation), params)


def _layer(key: Key, shape: tuple[int, ...], initializer: Callable[..., Any]) -> dict[str, Array]:
    return {"kernel": initializer(key, shape), "bias": jnp.zeros(shape[-1])}


def _dense(layer: Params, x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"]


def _conv(layer: Params, x: Array) -> Array:
    convolved = jax.lax.conv_general_dilated(
        x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return convolved + layer["bias"]


def _halved(x: Array) -> Array:
    """2 x 2 average pooling; an odd last row or column is left out."""
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
