"""Word vectors as the start, and the prior, of a network's table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key, Numbers, Params, Scalar
from bayestl._words import split_contraction
from bayestl.gaussians import Diagonal, diagonal

_SHOWN = 20


class WordReport(NamedTuple):
    """Which words of a vocabulary have vectors.

    Attributes:
        is_known: (V,) booleans, whether the word of a row has a vector.
        share: of the words of the texts, each as often as it comes, that have one; of the rows where the vocabulary
            does not say how often.
        new: words without a vector, commonest first, at most 20.
        contractions: how many rows are contractions whose last part has a vector, but they have none.
    """

    is_known: np.ndarray
    share: float
    new: tuple[str, ...]
    contractions: int

    def __str__(self) -> str:
        num = len(self.is_known)
        lines = [
            f"{int(self.is_known.sum()):,} of {num:,} rows have a vector, {self.share:.3f} of the words of the texts"
        ]
        if self.new:
            lines.append("without a vector: " + ", ".join(self.new[:8]))
        if self.contractions:
            lines.append(
                f'{self.contractions:,} of them are contractions in one piece ("doesn\'t"), whose parts have vectors: '
                "build the vocabulary with data.text.split_words"
            )
        return "\n".join(lines)


class WordPrior(NamedTuple):
    """What word vectors say about a table.

    Attributes:
        start: where training starts: nested dicts with the table (V, D) alone, as ``match`` takes it.
        prior: a Gaussian of the table alone, one variance per row; ``gaussians.by_path`` joins it to those of the rest.
        report: which words have vectors.
    """

    start: Params
    prior: Diagonal
    report: WordReport


def word_vectors(
    key: Key,
    vectors: Any,
    vocab: Sequence[str],
    scale: Scalar | Numbers,
    new_scale: Scalar | None = None,
    *,
    path: str = "embedding/table",
) -> WordPrior:
    """The start and the prior of a table of word vectors, from published ones or from those of another network.

    A word that has a vector has it as the mean of its prior and as its start. A word that has none has the mean zero
    and a wide scale; it starts at random, with the spread of the vectors, where the texts hold it, and at zero
    elsewhere. Words are compared letter by letter.

    Args:
        key: of the start of new words.
        vectors: with ``words`` and ``vectors`` (W, D): from :func:`bayestl.pretrained.read_vectors`, say.
        vocab: the word of each of V rows: a vocabulary of :func:`bayestl.data.text.vocabulary`, or any list.
        scale: standard deviation > 0 around the vectors of known words: one number, or one for every row, (V,) or
            (V, 1); wider for rare words, say: ``1 / (1 + vocab.counts)``.
        new_scale: standard deviation > 0 of new words around zero; None for the root mean square of the vectors.
        path: where the network keeps its table.

    Raises:
        ValueError: no word in common, words and vectors of different number, a vector that is not finite, a scale that
            is not positive and finite or has another shape.
        TypeError: vectors without words, a vocabulary that is no list of words.

    Example:
        >>> vectors = btl.pretrained.WordVectors(("good", "bad"), np.array([[1.0, 0.0], [-1.0, 0.5]]), "own", "here")
        >>> vocab = btl.data.text.vocabulary(["a good film", "a bad one"])
        >>> net = btl.nets.bag_of_words(jax.random.key(0), len(vocab), dimension=2, num_classes=2)
        >>> words = btl.sources.word_vectors(jax.random.key(1), vectors, vocab, scale=0.1)
        >>> print(words.report)
        2 of 7 rows have a vector, 0.333 of the words of the texts
        without a vector: a, film, one
        >>> start = btl.sources.match(words.start, net.params, new=["head/**"], verbose=False).params
        >>> prior = btl.gaussians.by_path({
        ...     "embedding/**": words.prior,
        ...     "head/**": btl.gaussians.isotropic(btl.tree.zeros_like(net.params), scale=1.0),
        ... }, like=net.params)
    """
    check_arguments(word_vectors, locals(), skip=("vectors", "vocab"))
    places, values = _checked_vectors(vectors)
    names = _checked_vocab(vocab)
    if not path.strip("/"):
        raise ValueError(f"path is {path!r}; give where the table is among the parameters, 'embedding/table'")
    rows = np.array([places.get(name, -1) for name in names])
    is_known = rows >= 0
    if not is_known.any():
        raise ValueError(
            f"no word of the vocabulary ({_tree.shown(names, 5)}) has a vector; those begin with "
            f"{_tree.shown(list(places)[:5], 5)}"
        )
    mean = np.where(is_known[:, None], values[rows], np.float32(0))
    spread = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    counts = getattr(vocab, "counts", None)
    is_drawn = ~is_known if counts is None else ~is_known & (np.asarray(counts) > 0)
    drawn = spread * jax.random.normal(key, mean.shape, jnp.float32)
    start = jnp.where(is_drawn[:, None], drawn, mean)
    scales = _row_scales(scale, is_known, spread if new_scale is None else new_scale)
    prior = diagonal(_nested(path, jnp.asarray(mean)), _nested(path, jnp.square(scales)))
    return WordPrior(_nested(path, start), prior, _report(names, is_known, counts, places))


def _checked_vectors(vectors: Any) -> tuple[dict[str, int], np.ndarray]:
    """Word to place, and the vectors (W, D)."""
    if not hasattr(vectors, "words") or not hasattr(vectors, "vectors"):
        raise TypeError(
            f"vectors is a {type(vectors).__name__}; give pretrained.read_vectors(path), or words with vectors"
        )
    words, values = list(vectors.words), np.asarray(vectors.vectors, np.float32)
    if values.ndim != 2 or len(words) != len(values):
        raise ValueError(f"vectors has {len(words)} words and vectors of shape {values.shape}; give one (D,) per word")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise ValueError(f"the vector of {words[bad]!r} is not finite; leave the word out")
    if not words:
        raise ValueError("vectors holds no word; those that read_vectors was asked for are not in its file")
    places: dict[str, int] = {}
    for place, word in enumerate(words):
        places.setdefault(word, place)
    return places, values


def _checked_vocab(vocab: Any) -> list[str]:
    if (
        isinstance(vocab, str | bytes)
        or not (hasattr(vocab, "__len__") and hasattr(vocab, "__iter__"))
        or not len(vocab)
    ):
        raise TypeError(f"vocab is a {type(vocab).__name__}; give a list with the word of every row")
    names = list(vocab)
    for row, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"vocab holds a {type(name).__name__} at row {row}; give a list with the word of every row")
    return names


def _row_scales(scale: Any, is_known: np.ndarray, new_scale: Any) -> jax.Array:
    """(V, 1)."""
    num, scale = len(is_known), jnp.asarray(scale, jnp.float32)
    if scale.shape not in ((), (num,), (num, 1)):
        raise ValueError(f"scale has shape {scale.shape}; give one number, or one for every row, ({num},)")
    for name, value in (("scale", scale), ("new_scale", new_scale)):
        if _tree.is_concrete(value) and not (np.isfinite(value).all() and (np.asarray(value) > 0).all()):
            raise ValueError(
                f"{name} is to be positive and finite; it has values from {np.min(value)} to {np.max(value)}"
            )
    return jnp.where(is_known[:, None], scale.reshape(-1, 1), new_scale)


def _nested(path: str, table: jax.Array) -> Params:
    tree: Any = table
    for part in reversed(path.strip("/").split("/")):
        tree = {part: tree}
    return tree


def _report(names: list[str], is_known: np.ndarray, counts: Any, places: dict[str, int]) -> WordReport:
    weights = np.ones(len(names)) if counts is None or not np.sum(counts) else np.asarray(counts, float)
    order = np.argsort(-weights, kind="stable")
    unknown = [names[row] for row in order if not is_known[row] and (counts is None or weights[row] > 0)]
    apart = [split_contraction(name) for name in unknown]
    contractions = sum(len(parts) > 1 and parts[-1] in places for parts in apart)
    return WordReport(is_known, float(weights[is_known].sum() / weights.sum()), tuple(unknown[:_SHOWN]), contractions)
