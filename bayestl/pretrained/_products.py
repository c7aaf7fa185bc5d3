"""Convolutions as matrix products, which a CPU runs fast inside a compiled loop."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from bayestl._arguments import check_arguments

T = TypeVar("T", bound=nnx.Module)


def as_products(module: T) -> T:
    """The module with every ``nnx.Conv`` in it written as slices and matrix products.

    Inside a compiled loop, which is how :func:`bayestl.fit` runs, XLA does not use its fast convolutions on a CPU: a
    training step of MobileNet's last block at 96 pixels took 170 times as long as with products. On a GPU or TPU leave
    convolutions as they are. Parameters keep their paths, and outputs are the same up to rounding.

    Args:
        module: a backbone, or any NNX module; it stays as it is, and so do its variables.

    Raises:
        ValueError: a convolution that is dilated, or in groups other than one per channel.

    Example:
        >>> from flax import nnx
        >>> net = btl.pretrained.cifar_resnet20(jax.random.key(0))
        >>> products = btl.pretrained.as_products(net)
        >>> a, b = (btl.nets.from_nnx(module) for module in (net, products))
        >>> btl.tree.paths(a.params) == btl.tree.paths(b.params)
        True
    """
    check_arguments(as_products, locals())
    module = nnx.clone(module)
    for _, part in list(nnx.iter_modules(module)):
        for name, child in list(vars(part).items()):
            if isinstance(child, nnx.Conv):
                setattr(part, name, ConvProduct(child))
    return module


class ConvProduct(nnx.Module):
    """A convolution written as slices and matrix products, with the variables of the original."""

    def __init__(self, conv: nnx.Conv):
        self.kernel = conv.kernel
        self.bias = conv.bias
        self.strides, self.padding = _pair(conv.strides), conv.padding
        inputs, outputs = conv.kernel_shape[-2:]
        self.depthwise = conv.feature_group_count > 1
        if _pair(conv.kernel_dilation) != (1, 1) or (self.depthwise and (inputs, outputs) != (1, conv.in_features)):
            raise ValueError(
                f"a convolution with kernel {conv.kernel_shape} is dilated or in groups, and has no product here; keep "
                "the module as it is"
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        height, width = kernel.shape[:2]
        slices = _slices(x, (height, width), self.strides, self.padding)
        if self.depthwise:
            each = zip(slices, kernel.reshape(-1, kernel.shape[-1]), strict=True)
            y = functools.reduce(jnp.add, [part * weights for part, weights in each])
        else:
            y = jnp.concatenate(slices, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
        return y if self.bias is None else y + self.bias[...]


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
