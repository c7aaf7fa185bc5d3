"""Two networks for texts, on tables of word vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bayestl._arguments import check_arguments
from bayestl._types import Key, Net, Params
from bayestl.nets._small import Activation, _dense, _head_kernel, _hidden_kernel, _layer

Tokens = Int[Array, "batch length"]


@dataclasses.dataclass(frozen=True)
class _BagOfWords:
    activation: Activation

    def __call__(self, params: Params, state: Any, tokens: Tokens, key: Key | None) -> tuple[Array, Any]:
        vectors, is_word = _looked_up(params["embedding"]["table"], tokens)
        x = vectors.sum(1) / jnp.maximum(is_word.sum(1, keepdims=True), 1)
        for number in range(len(params) - 2):
            x = self.activation(_dense(params[f"dense_{number}"], x))
        return _dense(params["head"], x), state


@dataclasses.dataclass(frozen=True)
class _TextCNN:
    widths: tuple[int, ...]
    dropout: float

    def __call__(self, params: Params, state: Any, tokens: Tokens, key: Key | None) -> tuple[Array, Any]:
        vectors, is_word = _looked_up(params["embedding"]["table"], tokens)
        x = jnp.concatenate([_pooled(params[f"conv_{width}"], vectors, is_word, width) for width in self.widths], -1)
        if key is not None and self.dropout:
            keep = jax.random.bernoulli(key, 1 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1 - self.dropout), 0)
        return _dense(params["head"], x), state


def bag_of_words(
    key: Key,
    num_rows: int,
    dimension: int,
    num_classes: int,
    hidden: Sequence[int] = (),
    activation: Activation = jax.nn.relu,
) -> Net:
    """The mean of the word vectors of a text, and layers on top: parameters ``embedding/table``, ``dense_0``, ``head``.

    Inputs are tokens (B, L), as from :func:`bayestl.data.text.encode`: row numbers of the table, 0 for padding. Padding
    counts for nothing, so its length changes nothing; a text without words has the mean 0. A token outside the table
    gives NaN. The table is a layer for curvature, of which padding is no row.

    Args:
        key: of the initialisation.
        num_rows: V, rows of the table: ``len(vocab)``.
        dimension: D, numbers of a word vector.
        num_classes: number of outputs.
        hidden: sizes of hidden layers, none by default.
        activation: elementwise, after every hidden layer.

    Raises:
        ValueError: a size that is not positive.

    Example:
        >>> net = btl.nets.bag_of_words(jax.random.key(0), num_rows=100, dimension=8, num_classes=2)
        >>> net(net.params, jnp.array([[5, 7, 0, 0], [0, 0, 0, 0]])).shape
        (2, 2)
    """
    check_arguments(bag_of_words, locals())
    _check_sizes(num_rows=num_rows, dimension=dimension, num_classes=num_classes)
    if hidden and min(hidden) < 1:
        raise ValueError(f"hidden is {tuple(hidden)}; give sizes of at least 1")
    keys = jax.random.split(key, len(hidden) + 2)
    sizes = (dimension, *hidden)
    params: dict[str, Any] = {"embedding": {"table": _table(keys[0], num_rows, dimension)}}
    for number, (size, following) in enumerate(zip(sizes, hidden, strict=False)):
        params[f"dense_{number}"] = _layer(keys[number + 1], (size, following), _hidden_kernel)
    params["head"] = _layer(keys[-1], (sizes[-1], num_classes), _head_kernel)
    return Net(params, (), _BagOfWords(activation))


def text_cnn(
    key: Key,
    num_rows: int,
    dimension: int,
    num_classes: int,
    channels: int = 100,
    widths: Sequence[int] = (3, 4, 5),
    dropout: float = 0.0,
) -> Net:
    """A convolutional network over the words of a text: parameters ``embedding/table``, ``conv_3``, ..., ``head``.

    For every width a convolution over so many neighbouring words and the largest value anywhere in the text, then a
    linear head. Texts are as for :func:`bag_of_words`. Windows reach over both ends of a text, where vectors are 0;
    those that hold no word are left out, so that the length of the padding changes nothing. A text without words has
    features 0. Written as dense products, which a compiled loop on a CPU runs faster than convolutions. (Kronecker
    curvature averages the inputs of a convolution over all its windows, those in padding too: choose a length that fits
    the texts.)

    Args:
        key: of the initialisation.
        num_rows: V, rows of the table: ``len(vocab)``.
        dimension: D, numbers of a word vector.
        num_classes: number of outputs.
        channels: outputs of each convolution.
        widths: words that each convolution sees.
        dropout: share of the features that is left out while training, in [0, 1); the paper has 0.5. A prior is a
            regulariser already.

    Raises:
        ValueError: a size that is not positive, no widths or the same one twice, a dropout outside [0, 1).

    Reference:
        Kim 2014, "Convolutional Neural Networks for Sentence Classification", EMNLP; without its bound on the norm of
        the head.

    Example:
        >>> net = btl.nets.text_cnn(jax.random.key(0), num_rows=100, dimension=8, num_classes=2, channels=4)
        >>> btl.tree.paths(net.params)[-2:]
        ['head/bias', 'head/kernel']
        >>> net(net.params, jnp.array([[5, 7, 0, 0], [0, 0, 0, 0]])).shape
        (2, 2)
    """
    check_arguments(text_cnn, locals())
    _check_sizes(num_rows=num_rows, dimension=dimension, num_classes=num_classes, channels=channels)
    if not widths or min(widths) < 1 or len(set(widths)) < len(widths):
        raise ValueError(f"widths is {tuple(widths)}; give different numbers of words, at least one, each >= 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; give a share in [0, 1)")
    keys = jax.random.split(key, len(widths) + 2)
    params: dict[str, Any] = {"embedding": {"table": _table(keys[0], num_rows, dimension)}}
    for number, width in enumerate(widths):
        params[f"conv_{width}"] = _layer(keys[number + 1], (width, dimension, channels), _hidden_kernel)
    params["head"] = _layer(keys[-1], (channels * len(widths), num_classes), _head_kernel)
    return Net(params, (), _TextCNN(tuple(int(width) for width in widths), float(dropout)))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; give a number of at least 1")


def _table(key: Key, num_rows: int, dimension: int) -> Array:
    """Vectors of length 1 or so."""
    return jax.random.normal(key, (num_rows, dimension)) / jnp.sqrt(float(dimension))


def _looked_up(table: Array, tokens: Tokens) -> tuple[Float[Array, "batch length d"], Float[Array, "batch length"]]:
    """The vectors of tokens, 0 for padding, and 1 where there is a word."""
    if not jnp.issubdtype(tokens.dtype, jnp.integer) or tokens.ndim != 2:
        raise TypeError(
            f"tokens have shape {tokens.shape} and dtype {tokens.dtype}; give whole numbers (B, L), as "
            "data.text.encode(texts, vocab).tokens"
        )
    num_rows = table.shape[0]
    is_word = tokens != 0
    # Padding is outside the table, and so no row of it for curvature either.
    vectors = table.at[jnp.where(is_word, tokens, num_rows)].get(mode="fill", fill_value=0)
    is_outside = (tokens < 0) | (tokens >= num_rows)
    return jnp.where(is_outside[..., None], jnp.nan, vectors), is_word.astype(table.dtype)


def _pooled(
    layer: Params, vectors: Float[Array, "batch length d"], is_word: Float[Array, "batch length"], width: int
) -> Float[Array, "batch channels"]:
    """The largest value of each channel over all windows that hold a word."""
    beyond, num = width - 1, vectors.shape[1] + width - 1
    padded = jnp.pad(vectors, ((0, 0), (beyond, beyond), (0, 0)))
    windows = jnp.concatenate([padded[:, start : start + num] for start in range(width)], -1)
    words = jnp.pad(is_word, ((0, 0), (beyond, beyond)))
    holds_word = jnp.stack([words[:, start : start + num] for start in range(width)]).any(0)
    kernel = layer["kernel"].reshape(-1, layer["kernel"].shape[-1])
    values = jax.nn.relu(windows @ kernel + layer["bias"])
    # Values are not negative, so that 0 never wins over a window that counts.
    return jnp.max(jnp.where(holds_word[..., None], values, 0), 1)
