"""Networks as this machine runs them best: convolutions as products, and parts that nothing trains."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

T = TypeVar("T", bound=nnx.Module)
FORWARD_BATCH = 64


class Constant(nnx.Variable):
    """An array of a module that nothing trains: no parameter, so that it has neither prior nor gradient."""


class Product(nnx.Module):
    """A convolution written as slices and matrix products, with the variables of the original.

    Inside a compiled loop XLA runs convolutions on a CPU without its fast kernels; these products it does not slow.
    """

    def __init__(self, conv: nnx.Conv):
        self.kernel = conv.kernel
        self.bias = conv.bias
        self.strides, self.padding = _pair(conv.strides), conv.padding
        inputs, outputs = conv.kernel_shape[-2:]
        self.depthwise = conv.feature_group_count > 1
        if _pair(conv.kernel_dilation) != (1, 1) or (self.depthwise and (inputs, outputs) != (1, conv.in_features)):
            raise ValueError(
                f"a convolution with kernel {conv.kernel_shape} in groups, or dilated, is not written here"
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        height, width = kernel.shape[:2]
        seen = _slices(x, (height, width), self.strides, self.padding)
        if self.depthwise:
            each = zip(seen, kernel.reshape(-1, kernel.shape[-1]), strict=True)
            y = functools.reduce(jnp.add, [part * weights for part, weights in each])
        else:
            y = jnp.concatenate(seen, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
        return y if self.bias is None else y + self.bias[...]


def as_products(module: T) -> T:
    """The module with every ``nnx.Conv`` in it as a :class:`Product`; parameters keep their paths."""
    module = nnx.clone(module)
    for _, part in list(nnx.iter_modules(module)):
        for name, child in list(vars(part).items()):
            if isinstance(child, nnx.Conv):
                setattr(part, name, Product(child))
    return module


def frozen(module: T) -> T:
    """The module with its parameters as :class:`Constant`: ``from_nnx`` then counts them to the state."""
    module = nnx.clone(module)
    for _, part in list(nnx.iter_modules(module)):
        for name, child in list(vars(part).items()):
            if isinstance(child, nnx.Param):
                setattr(part, name, Constant(child[...]))
    return module


def _slices(x: jax.Array, size: Sequence[int], strides: Sequence[int], padding: Any) -> list[jax.Array]:
    """What the places of a kernel of this size see, row by row."""
    pads = [_pads(*each) for each in zip(x.shape[1:3], size, strides, _padding(padding), strict=True)]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = ((n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], size, strides, strict=True))
    return [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]] for i in range(size[0]) for j in range(size[1])
    ]


def _padding(padding: Any) -> Sequence[Any]:
    return (padding, padding) if isinstance(padding, str) else padding


def _pads(length: int, size: int, stride: int, padding: Any) -> tuple[int, int]:
    if padding == "VALID":
        return 0, 0
    if padding == "SAME":
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        return total // 2, total - total // 2
    return tuple(padding)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def forward(module: Any, inputs: Any) -> np.ndarray:
    """What a module gives for many inputs, some at a time."""
    run = jax.jit(lambda x: module(x))
    padded = np.pad(inputs, [(0, -len(inputs) % FORWARD_BATCH), *[(0, 0)] * (inputs.ndim - 1)], mode="edge")
    parts = [np.asarray(run(padded[i : i + FORWARD_BATCH])) for i in range(0, len(padded), FORWARD_BATCH)]
    return np.concatenate(parts)[: len(inputs)]
