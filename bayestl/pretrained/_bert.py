"""BERT encoders, under the names of Hugging Face's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bayestl._arguments import check_arguments
from bayestl._types import DType, Key
from bayestl.pretrained._backbone import Backbone, build
from bayestl.pretrained._layers import Layers, check_sizes
from bayestl.pretrained._transformer import PostNormBlock, Tokens, TransformerSize, small_kernel

Pooling = Callable[[jax.Array, jax.Array], jax.Array]
"""From tokens (B, T, width) and their mask (B, T) to one vector per text, (B, width)."""

_DEFAULTS = {
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
}
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Embed(nnx.Module):
    """Words, their positions and the segments that they belong to: token numbers (B, T) to :class:`Tokens`."""

    def __init__(self, make: Layers, config: Mapping[str, Any]):
        width, self.padding = config["hidden_size"], config["pad_token_id"]

        def table(rows: int) -> nnx.Embed:
            return nnx.Embed(rows, width, dtype=make.dtype, embedding_init=small_kernel, rngs=make.rngs)

        self.words, self.segments = table(config["vocab_size"]), table(config["type_vocab_size"])
        self.positions = table(config["max_position_embeddings"])
        self.norm = make.layer_norm(width, config["layer_norm_eps"])

    def __call__(self, inputs: Any) -> Tokens:
        ids, mask, segments = _parts(inputs, self.padding)
        if ids.shape[1] > self.positions.num_embeddings:
            raise ValueError(
                f"inputs have {ids.shape[1]} tokens per text; this network has positions for "
                f"{self.positions.num_embeddings}: cut the texts, or split them"
            )
        # Tokens outside the table give NaN. Negative ones would count from its end, and are moved beyond it.
        ids = jnp.where((ids < 0) & mask, self.words.num_embeddings, ids)
        x = self.words(ids) + self.segments(segments) + self.positions(jnp.arange(ids.shape[1]))
        return Tokens(self.norm(x), mask)


class Pool(nnx.Module):
    """One vector per text from its tokens."""

    def __init__(self, pooling: Pooling):
        self.pooling = pooling

    def __call__(self, tokens: Tokens) -> jax.Array:
        return self.pooling(tokens.hidden, tokens.mask)


def mean_of_tokens(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean over the tokens of each text, padding left out; 0 for a text without tokens.

    Args:
        hidden: (B, T, width).
        mask: (B, T), True at tokens.

    Returns:
        (B, width).

    Example:
        >>> hidden, mask = jnp.array([[[1.0], [3.0], [100.0]]]), jnp.array([[True, True, False]])
        >>> print(btl.pretrained.mean_of_tokens(hidden, mask))
        [[2.]]
    """
    check_arguments(mean_of_tokens, locals())
    weights = jnp.asarray(mask).astype(hidden.dtype)
    total = jnp.einsum("btw,bt->bw", jnp.where(mask[..., None], hidden, 0), weights)
    return total / jnp.maximum(weights.sum(1), 1)[:, None]


def first_token(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """The first token of each text, which is ``[CLS]`` in BERT.

    Args:
        hidden: (B, T, width).
        mask: not needed.

    Returns:
        (B, width).

    Example:
        >>> print(btl.pretrained.first_token(jnp.array([[[1.0], [3.0]]]), jnp.ones((1, 2), bool)))
        [[1.]]
    """
    check_arguments(first_token, locals())
    return hidden[:, 0]


def bert(
    key: Key,
    config: Mapping[str, Any],
    *,
    pooling: Pooling = mean_of_tokens,
    num_classes: int | None = None,
    cut: str | None = None,
    dtype: DType | None = None,
) -> Backbone:
    """A BERT encoder (Devlin et al. 2018) of any size, of which MiniLM and most sentence encoders are examples.

    Stages ``embed``, ``block0``, ``block1``, ... (tokens, and which of them are padding), ``pool`` (B, width) and, with
    ``num_classes``, ``head``. Inputs are token numbers (B, T), where those of padding count as no tokens; or a dict
    with the arrays that Hugging Face's tokenizers give: ``input_ids``, and where needed ``attention_mask`` and
    ``token_type_ids``. A token outside the vocabulary gives NaN. There is no dropout. :func:`load` fills in published
    weights by ``tables.bert``; BERT's own pooler, a dense layer after the first token, is left out.

    Args:
        key: of the initialisation.
        config: the contents of the model's ``config.json``, such as ``json.loads(path.read_text())``.
        pooling: how the tokens of a text become one vector: ``mean_of_tokens``, ``first_token``, or a function of your
            own from tokens (B, T, width) and mask (B, T).
        num_classes: outputs of a new head, >= 1; None for the features alone.
        cut: the last stage to keep.
        dtype: of the computation, e.g. ``jnp.bfloat16``; parameters are float32 and outputs at least that.

    Raises:
        ValueError: a size that is missing or not positive, an architecture that differs from BERT, no stage ``cut``;
            when called: inputs of another shape, or more tokens than positions.

    Example:
        >>> config = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        ...           "intermediate_size": 64}
        >>> net = btl.nets.from_nnx(btl.pretrained.bert(jax.random.key(0), config, num_classes=3))
        >>> tokens = jnp.array([[5, 17, 42, 6], [5, 99, 6, 0]])  # the second text is shorter
        >>> net(net.params, tokens).shape
        (2, 3)
        >>> [path for path in btl.tree.paths(net.params) if path.startswith("block0/attention/query")]
        ['block0/attention/query/bias', 'block0/attention/query/kernel']
    """
    check_arguments(bert, locals())
    config = _checked(config)
    if num_classes is not None:
        check_sizes(num_classes)
    width = config["hidden_size"]
    size = TransformerSize(
        config["num_hidden_layers"],
        width,
        config["num_attention_heads"],
        config["intermediate_size"],
        config["layer_norm_eps"],
    )
    make = Layers(nnx.Rngs(params=key), dtype)
    stages: dict[str, Callable[[], Any]] = {"embed": lambda: Embed(make, config)}
    stages |= {f"block{n}": lambda: PostNormBlock(make, size) for n in range(size.depth)}
    stages["pool"] = lambda: Pool(pooling)
    if num_classes is not None:
        stages["head"] = lambda: make.linear(width, num_classes, small_kernel)
    return build(stages, include_top=True, cut=cut)


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    missing = [name for name in _SIZES if name not in config]
    if missing:
        raise ValueError(f"config lacks {', '.join(map(repr, missing))}; give the contents of the model's config.json")
    config = {**_DEFAULTS, **config}
    for name in (*_SIZES, "max_position_embeddings", "type_vocab_size"):
        if isinstance(config[name], bool) or not isinstance(config[name], int) or config[name] < 1:
            raise ValueError(f"config[{name!r}] is {config[name]!r}; give an integer >= 1")
    for name in ("model_type", "hidden_act", "position_embedding_type"):
        if config[name] != _DEFAULTS[name]:
            raise ValueError(
                f"config[{name!r}] is {config[name]!r}, which is another network than BERT; it must be "
                f"{_DEFAULTS[name]!r}"
            )
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ValueError(
            f"config has a hidden_size of {config['hidden_size']} and {config['num_attention_heads']} attention heads; "
            "the heads must divide it"
        )
    return config


def _parts(inputs: Any, padding: int | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Token numbers, mask and segments, (B, T) each."""
    given = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
    if "input_ids" not in given or set(given) - set(_INPUTS):
        raise ValueError(
            f"inputs have the entries {sorted(given)}; give token numbers (B, T), or a dict with 'input_ids' and, "
            "where needed, 'attention_mask' and 'token_type_ids'"
        )
    for name, x in given.items():
        shape, dtype = jnp.shape(x), jnp.result_type(x)
        allowed = (jnp.integer, jnp.bool_) if name == "attention_mask" else (jnp.integer,)
        is_number = any(jnp.issubdtype(dtype, kind) for kind in allowed)
        if len(shape) != 2 or shape != jnp.shape(given["input_ids"]) or not is_number:
            raise ValueError(f"{name} has shape {shape} and dtype {dtype}; give whole numbers (B, T), one per token")
    ids = given["input_ids"]
    mask = given.get("attention_mask", jnp.ones_like(ids) if padding is None else ids != padding)
    return ids, mask.astype(bool), given.get("token_type_ids", jnp.zeros_like(ids))
