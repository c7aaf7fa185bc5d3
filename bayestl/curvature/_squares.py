"""Squared gradients of all parameters of a network, from the inputs and output gradients of its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl.layers import (
    Gradients,
    Layer,
    LayeredNetwork,
    LayerGradients,
    ProductGradients,
    RowGradients,
    TiedGradients,
    once_per_row,
    weight_gradient,
)

# How many numbers of a tied parameter's gradients are formed at a time.
_AT_ONCE = 2**22


def squares(network: LayeredNetwork, gradients: Gradients) -> list[jax.Array]:
    """The squared gradients of all parameters, summed over examples and columns, in the shapes of the leaves."""
    each = {leaf: jnp.sum(g * g, (0, 1)) for leaf, g in gradients.leaves.items()}
    for layer, of_layer in zip(network.layers, gradients.layers, strict=True):
        each[layer.leaf] = layer_squares(layer, of_layer)
    return [each.get(leaf, jnp.zeros(x.shape, x.dtype)) for leaf, x in enumerate(network.leaves)]


def layer_squares(layer: Layer, of_layer: LayerGradients) -> jax.Array:
    """The squared gradients of a layer's parameter, summed over examples and columns."""
    if isinstance(of_layer, TiedGradients):
        return _tied_squares(layer, of_layer)
    if isinstance(of_layer, RowGradients):
        return layer.rearrangement.back(_row_squares(of_layer, layer.rearrangement.result[0])[:, None])
    return layer.rearrangement.back(_product_squares(of_layer))


def _product_squares(layer: ProductGradients) -> jax.Array:
    """``sum_n sum_j (sum_p a_np g_jnp^T)^2``, (g, I, O)."""
    a, z = layer
    if a.shape[1] == 1:
        return jnp.einsum("bgi,bgo->gio", a[:, 0] ** 2, jnp.sum(z[:, :, 0] ** 2, 0), precision=Precision.HIGHEST)
    if a.shape[2] == 1:
        # Products without a batch axis of length 1 are faster.
        each = jnp.einsum("bpi,kbpo->bkio", a[:, :, 0], z[:, :, :, 0], precision=Precision.HIGHEST)[:, :, None]
    else:
        each = jnp.einsum("bpgi,kbpgo->bkgio", a, z, precision=Precision.HIGHEST)
    return jnp.sum(each * each, (0, 1))


def _row_squares(layer: RowGradients, count: int) -> jax.Array:
    """``sum_n sum_j (sum_p [row_np = v] g_jnp)^2`` for every row v, (V, O)."""
    rows, z = once_per_row(layer)
    table = jnp.zeros((count, z.shape[-1]), z.dtype)
    return table.at[rows].add(jnp.sum(z * z, 0), mode="drop")


def _tied_squares(layer: Layer, tied: TiedGradients) -> jax.Array:
    """From gradients of the parameter itself, a few at a time; they are summed over its sites, then squared."""
    columns, examples = tied.sites[0].gradients.shape[:2]
    size = layer.rearrangement.shape

    def one(number: jax.Array) -> jax.Array:
        column, example = jnp.divmod(number, examples)

        def of_site(site: ProductGradients | RowGradients) -> Any:
            return type(site)(site[0][example], site.gradients[column, example])

        return weight_gradient(layer, TiedGradients(tuple(of_site(site) for site in tied.sites))) ** 2

    numbers = 1
    for length in size:
        numbers *= length
    return _summed(one, columns * examples, max(_AT_ONCE // max(numbers, 1), 1))


def _summed(function: Callable[[jax.Array], jax.Array], count: int, at_once: int) -> jax.Array:
    """``sum_i function(i)`` for i below ``count``, some at a time."""
    at_once = min(at_once, count)
    shape = jax.eval_shape(function, jnp.zeros((), jnp.int32))

    def add(total: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        numbers = start + jnp.arange(at_once)
        each = jax.vmap(function)(jnp.minimum(numbers, count - 1))
        counts = (numbers < count).reshape(-1, *[1] * (each.ndim - 1))
        return total + jnp.sum(jnp.where(counts, each, 0), 0), None

    starts = jnp.arange(0, count, at_once)
    return jax.lax.scan(add, jnp.zeros(shape.shape, shape.dtype), starts)[0]
