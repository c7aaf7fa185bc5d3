"""Which row of a table of vectors belongs to which word."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
from jaxtyping import Int

from bayestl._arguments import check_arguments
from bayestl.data.text._split import split_words

PADDING, UNKNOWN = "<padding>", "<unknown>"


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Vocabulary(Sequence[str]):
    """The words of the rows of a table; made by :func:`vocabulary`. As a sequence it holds one word for every row.

    Attributes:
        words: the word of each row. Row 0 is padding, row 1 stands for all unknown words.
        counts: (V,), how often each word came in the texts.
        split: a text to its words.
    """

    words: tuple[str, ...]
    counts: Int[np.ndarray, " rows"]
    split: Callable[[str], list[str]]

    padding = 0
    unknown = 1

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        """Word to row number; without the two rows that stand for no word."""
        return {word: row for row, word in enumerate(self.words) if row > self.unknown}

    def __len__(self) -> int:
        return len(self.words)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self.words[index]

    def __repr__(self) -> str:
        shown = ", ".join(repr(word) for word in self.words[2:7])
        return f"Vocabulary({len(self):,} rows: padding, unknown, {shown}{', ...' if len(self) > 7 else ''})"


def vocabulary(
    texts: Sequence[str],
    split: Callable[[str], list[str]] = split_words,
    *,
    min_count: int = 1,
    max_size: int | None = None,
    extra: Sequence[str] = (),
) -> Vocabulary:
    """The vocabulary of some texts: padding, unknown, and their words, most frequent first.

    Args:
        texts: of the training set, or of all that is there: no label is looked at.
        split: a text to its words; any function.
        min_count: words that come less often get no row.
        max_size: at most so many words, the most frequent ones; None for all.
        extra: words that get a row in any case, after the others, in this order: those of word vectors, so that texts
            which come later find more of their words.

    Raises:
        ValueError: no texts and no extra words.
        TypeError: texts that are not text (bytes are to be decoded), or a split that returns no list of words.

    Example:
        >>> vocab = btl.data.text.vocabulary(["a good film", "not a good one"], max_size=3)
        >>> vocab.words
        ('<padding>', '<unknown>', 'a', 'good', 'film')
    """
    check_arguments(vocabulary, locals(), skip=("texts", "extra"))
    check_texts("texts", texts)
    check_texts("extra", extra)
    if min_count < 1 or (max_size is not None and max_size < 1):
        raise ValueError(f"min_count is {min_count} and max_size {max_size}; give numbers of at least 1")
    if not len(texts) and not len(extra):
        raise ValueError("texts holds no text, and extra no word; give the texts of the training set")
    counts = collections.Counter(word for text in texts for word in split_by(split, text))
    for special in (PADDING, UNKNOWN):
        del counts[special]
    frequent = [word for word, count in counts.most_common(max_size) if count >= min_count]
    words = dict.fromkeys([*frequent, *(word for word in extra if word not in (PADDING, UNKNOWN))])
    numbers = np.array([0, 0, *(counts[word] for word in words)])
    return Vocabulary((PADDING, UNKNOWN, *words), numbers, split)


def check_texts(name: str, texts: Any) -> None:
    """Refuse what is no list of texts."""
    if isinstance(texts, str | bytes) or not (hasattr(texts, "__len__") and hasattr(texts, "__iter__")):
        raise TypeError(f"{name} is a {type(texts).__name__}; give a list of texts")
    for number, text in enumerate(texts):
        if isinstance(text, bytes):
            raise TypeError(f"{name}[{number}] is bytes; decode it first: text.decode()")
        if not isinstance(text, str):
            raise TypeError(f"{name}[{number}] is a {type(text).__name__}; give a list of texts")


def split_by(split: Callable[[str], list[str]], text: str) -> list[str]:
    """The words of a text; an error where ``split`` gives something else.

    Raises:
        TypeError: no list of words.
    """
    words = split(text)
    if isinstance(words, str) or not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"split returned a {type(words).__name__}; return a list of words")
    return list(words)
