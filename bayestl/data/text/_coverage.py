"""How much of some texts a list of words knows."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from bayestl._arguments import check_arguments
from bayestl._words import split_contraction
from bayestl.data.text._split import split_words
from bayestl.data.text._vocabulary import check_texts, split_by

_SHOWN = 20
# Of all words: published texts that are split as their vectors are have none at all.
_MANY_CONTRACTIONS = 1e-3


class Coverage(NamedTuple):
    """How much of some texts is known.

    Attributes:
        num_tokens: words in all texts, each as often as it comes.
        num_types: different words.
        tokens: the share of ``num_tokens`` that is known; NaN where there are none.
        types: the share of ``num_types``.
        unknown: the commonest unknown words, and how often each comes.
        contractions: how often an unknown word is a contraction whose last part is known.
    """

    num_tokens: int
    num_types: int
    tokens: float
    types: float
    unknown: tuple[tuple[str, int], ...]
    contractions: int

    @property
    def note(self) -> str | None:
        """What is to be done about contractions; None where there are few."""
        if self.contractions < max(1, _MANY_CONTRACTIONS * self.num_tokens):
            return None
        return (
            f'{self.contractions:,} of {self.num_tokens:,} words are contractions in one piece, as "doesn\'t", and '
            'unknown, where their parts are known ("n\'t"): negations are lost; split with data.text.split_words'
        )

    def __str__(self) -> str:
        lines = [
            f"known: {self.tokens:.3f} of {self.num_tokens:,} words, "
            f"{self.types:.3f} of {self.num_types:,} different ones"
        ]
        if self.unknown:
            lines.append("unknown: " + ", ".join(f"{word} ({count})" for word, count in self.unknown[:8]))
        return "\n".join([*lines, *([self.note] if self.note else [])])


def counted(counts: collections.Counter[str], known: Collection[str]) -> Coverage:
    """The coverage of words that came so often."""
    unknown = collections.Counter({word: count for word, count in counts.items() if word not in known})
    total, types = counts.total(), len(counts)

    def is_contraction(word: str) -> bool:
        parts = split_contraction(word)
        return len(parts) > 1 and parts[-1] in known

    return Coverage(
        total,
        types,
        1 - unknown.total() / total if total else float("nan"),
        1 - len(unknown) / types if types else float("nan"),
        tuple(unknown.most_common(_SHOWN)),
        sum(count for word, count in unknown.items() if is_contraction(word)),
    )


def coverage(texts: Sequence[str], words: Collection[str], split: Callable[[str], list[str]] = split_words) -> Coverage:
    """How much of some texts a list of words knows: that of word vectors, before a network is built on them.

    Args:
        texts: any.
        words: the known ones: ``vectors.words``, or a vocabulary.
        split: a text to its words.

    Raises:
        TypeError: texts or words that are no lists of texts.

    Warns:
        UserWarning: contractions are unknown whose parts are known.

    Example:
        >>> print(btl.data.text.coverage(["it doesn't work"], ["it", "does", "n't"]))
        known: 0.750 of 4 words, 0.750 of 4 different ones
        unknown: work (1)
    """
    check_arguments(coverage, locals(), skip=("texts", "words"))
    check_texts("texts", texts)
    check_texts("words", words)
    counts = collections.Counter(word for text in texts for word in split_by(split, text))
    result = counted(counts, frozenset(words))
    if result.note:
        warnings.warn(result.note, stacklevel=2)
    return result
