"""Texts as rows of numbers of one length."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from bayestl._arguments import check_arguments
from bayestl.data.text._coverage import Coverage, counted
from bayestl.data.text._tokenizer import Tokenizer
from bayestl.data.text._vocabulary import Vocabulary, check_texts, split_by


class EncodingReport(NamedTuple):
    """What became of the texts.

    Attributes:
        num_texts: N.
        length: L.
        longest: words of the longest text.
        cut: (C,), texts of more than ``length`` words, by number; what follows is left out.
        empty: (E,), texts without a word.
        coverage: how many words have a row of their own.
    """

    num_texts: int
    length: int
    longest: int
    cut: np.ndarray
    empty: np.ndarray
    coverage: Coverage

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.num_texts:,} texts of at most {self.length} words; {len(self.cut):,} longer ones were cut (the "
                f"longest has {self.longest}), {len(self.empty):,} have no word",
                str(self.coverage),
            ]
        )


class Encoded(NamedTuple):
    """Texts as numbers.

    Attributes:
        tokens: (N, L), int32: rows of a table; behind the end of a text that of padding, 0 in a vocabulary.
        report: what became of the texts.
    """

    tokens: Int[np.ndarray, "texts length"]
    report: EncodingReport


def encode(texts: Sequence[str], vocab: Vocabulary | Tokenizer, length: int | None = None) -> Encoded:
    """Texts as rows of numbers, all of one length: padding is 0, unknown words are 1.

    Args:
        texts: N texts.
        vocab: the vocabulary, which splits them too; or a tokenizer, with numbers of its own for padding and unknown.
        length: L; longer texts lose their end. None for the longest text.

    Raises:
        ValueError: no texts, or a length that is not positive.
        TypeError: texts that are not text.

    Warns:
        UserWarning: contractions are unknown whose parts are known.

    Example:
        >>> vocab = btl.data.text.vocabulary(["a good film"])
        >>> encoded = btl.data.text.encode(["a film!", "good film, a good film", ""], vocab, length=4)
        >>> encoded.tokens
        array([[2, 4, 1, 0],
               [3, 4, 1, 2],
               [0, 0, 0, 0]], dtype=int32)
        >>> print(encoded.report)
        3 texts of at most 4 words; 1 longer ones were cut (the longest has 6), 1 have no word
        known: 0.778 of 9 words, 0.600 of 5 different ones
        unknown: ! (1), , (1)
    """
    check_arguments(encode, locals(), skip=("texts", "vocab"))
    check_texts("texts", texts)
    if not isinstance(vocab, Vocabulary | Tokenizer):
        raise TypeError(
            f"vocab is a {type(vocab).__name__}; give data.text.vocabulary(texts), or a data.text.tokenizer"
        )
    if not len(texts):
        raise ValueError("texts holds no text")
    if length is not None and length < 1:
        raise ValueError(f"length is {length}; give a number of words, at least 1, or None for the longest text")
    if isinstance(vocab, Tokenizer):
        rows, lengths, coverage = vocab.numbered(texts, length)
    else:
        rows, lengths, coverage = _numbered(texts, vocab)
    words = np.array(lengths)
    longest = max(1, max(len(row) for row in rows)) if length is None else length
    tokens = np.full((len(texts), longest), vocab.padding, np.int32)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = row[:longest]
    room = longest - (vocab.num_special if isinstance(vocab, Tokenizer) else 0)
    report = EncodingReport(
        len(texts), longest, int(words.max()), np.flatnonzero(words > room), np.flatnonzero(words == 0), coverage
    )
    if coverage.note:
        warnings.warn(coverage.note, stacklevel=2)
    return Encoded(tokens, report)


def _numbered(texts: Sequence[str], vocab: Vocabulary) -> tuple[list[list[int]], list[int], Coverage]:
    split = [split_by(vocab.split, text) for text in texts]
    rows = [[vocab.rows.get(word, vocab.unknown) for word in words] for words in split]
    counts = collections.Counter(word for words in split for word in words)
    return rows, [len(row) for row in rows], counted(counts, vocab.rows)
