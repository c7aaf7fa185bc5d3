"""Word vectors as a reader of files gives them back."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bayestl._arguments import check_arguments


class Skipped(NamedTuple):
    """An entry of a file of word vectors that was left out.

    Attributes:
        number: which vector of the file, from 1.
        word: as far as it can be read.
        reason: why it was left out.
    """

    number: int
    word: str
    reason: str


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class WordVectors:
    """Words and their vectors; made by :func:`read_vectors`.

    Attributes:
        words: in the order of the file, most frequent first in published ones; none comes twice.
        vectors: (V, D), float32; row i belongs to ``words[i]``.
        format: ``glove``, ``word2vec``, ``word2vec-binary`` or ``fasttext``.
        source: the file.
        skipped: entries that were left out: words that came before, words that could not be read. The first 10,000.
        num_skipped: how many were left out.
    """

    words: tuple[str, ...]
    vectors: Float[np.ndarray, "words dimensions"]
    format: str
    source: str
    skipped: tuple[Skipped, ...] = ()
    num_skipped: int = 0

    def __len__(self) -> int:
        return len(self.words)

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        """Word to row number."""
        return {word: row for row, word in enumerate(self.words)}

    @functools.cached_property
    def _directions(self) -> np.ndarray:
        norms = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors / np.where(norms > 0, norms, 1)

    def vector(self, word: str) -> Float[np.ndarray, " dimensions"]:
        """The vector of a word.

        Raises:
            ValueError: it has none.
        """
        if word not in self.rows:
            raise ValueError(f"{word!r} has no vector in {self.source}; published vectors are often of small letters")
        return self.vectors[self.rows[word]]

    def nearest(self, query: str | np.ndarray, num: int = 5) -> list[tuple[str, float]]:
        """The words whose vectors have the largest cosine with that of a word, or with a vector (D,).

        Args:
            query: a word, which is left out of the answer, or a vector.
            num: how many words.

        Raises:
            ValueError: a word without a vector, or a vector of another length.
        """
        check_arguments(WordVectors.nearest, locals() | {"query": None}, skip=("query",))
        vector = self.vector(query) if isinstance(query, str) else np.asarray(query, np.float32)
        if vector.shape != self.vectors.shape[1:]:
            raise ValueError(f"query has shape {vector.shape}; give a word, or a vector {self.vectors.shape[1:]}")
        cosines = self._directions @ (vector / (np.linalg.norm(vector) or 1))
        order = [int(row) for row in np.argsort(-cosines, kind="stable")[: num + 1]]
        if isinstance(query, str):
            order = [row for row in order if row != self.rows[query]]
        return [(self.words[row], float(cosines[row])) for row in order[:num]]

    def __repr__(self) -> str:
        return f"WordVectors({len(self):,} words, {self.vectors.shape[1]} numbers each, {self.format}, {self.source!r})"
