"""What vision transformers and text encoders share: attention, MLPs and the blocks around them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from bayestl.pretrained._layers import Layers

small_kernel = nnx.initializers.truncated_normal(0.02)
"""How transformers start: normal, standard deviation 0.02, truncated at two of these."""


class TransformerSize(NamedTuple):
    """Attributes:
    depth: blocks.
    width: numbers per token.
    heads: of every attention; they divide the width.
    hidden: numbers per token inside of every MLP.
    epsilon: what layer normalisation adds to the variance.
    """

    depth: int
    width: int
    heads: int
    hidden: int
    epsilon: float


class Tokens(NamedTuple):
    """Tokens on their way through an encoder.

    Attributes:
        hidden: (B, T, width).
        mask: (B, T), True at tokens and False at padding.
    """

    hidden: jax.Array
    mask: jax.Array


def attended(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """What every token gets from all, (B, T, width), for queries, keys and values (B, T, heads, width / heads).

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: (B, T), False at tokens that nobody looks at; None for none. Where it is False throughout, all count.
    """
    where = None if mask is None else mask[:, None, None, :]
    mixed = jax.nn.dot_product_attention(q, k, v, mask=where)
    return mixed.reshape(*mixed.shape[:2], -1)


class FusedAttention(nnx.Module):
    """Self-attention, with queries, keys and values from one dense layer."""

    def __init__(self, make: Layers, size: TransformerSize):
        self.heads = size.heads
        self.qkv = make.linear(size.width, 3 * size.width, small_kernel)
        self.proj = make.linear(size.width, size.width, small_kernel)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        q, k, v = jnp.moveaxis(self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads), 2, 0)
        return self.proj(attended(q, k, v))


class Attention(nnx.Module):
    """Self-attention, with queries, keys and values from a dense layer each."""

    def __init__(self, make: Layers, size: TransformerSize):
        self.heads = size.heads
        self.query = make.linear(size.width, size.width, small_kernel)
        self.key = make.linear(size.width, size.width, small_kernel)
        self.value = make.linear(size.width, size.width, small_kernel)
        self.output = make.linear(size.width, size.width, small_kernel)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        def heads(layer: Any) -> jax.Array:
            return layer(x).reshape(*x.shape[:2], self.heads, -1)

        return self.output(attended(heads(self.query), heads(self.key), heads(self.value), mask))


class MLP(nnx.Module):
    """Two dense layers with GELU between."""

    def __init__(self, make: Layers, size: TransformerSize):
        self.fc1 = make.linear(size.width, size.hidden, small_kernel)
        self.fc2 = make.linear(size.hidden, size.width, small_kernel)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(nnx.gelu(self.fc1(x), approximate=False))


class PreNormBlock(nnx.Module):
    """Attention and MLP, each on normalised tokens and added to them: (B, T, width) to the same shape."""

    def __init__(self, make: Layers, size: TransformerSize):
        self.norm1, self.attn = make.layer_norm(size.width, size.epsilon), FusedAttention(make, size)
        self.norm2, self.mlp = make.layer_norm(size.width, size.epsilon), MLP(make, size)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PostNormBlock(nnx.Module):
    """Attention and MLP, each added to its tokens, and the sums normalised."""

    def __init__(self, make: Layers, size: TransformerSize):
        self.attention, self.norm1 = Attention(make, size), make.layer_norm(size.width, size.epsilon)
        self.mlp, self.norm2 = MLP(make, size), make.layer_norm(size.width, size.epsilon)

    def __call__(self, tokens: Tokens) -> Tokens:
        x = self.norm1(tokens.hidden + self.attention(tokens.hidden, tokens.mask))
        return Tokens(self.norm2(x + self.mlp(x)), tokens.mask)
