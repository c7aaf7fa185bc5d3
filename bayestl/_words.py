"""Contractions, which decide whether a negation has a word vector."""

from __future__ import annotations

import re

_CONTRACTION = re.compile(r"(.*[^\W_].*?)(n't|'(?:s|m|d|re|ve|ll))", re.IGNORECASE | re.DOTALL)


def split_contraction(word: str) -> list[str]:
    """The parts of a contraction as the Penn treebank writes them: ``does n't``, ``it 's``, ``should n't 've``."""
    parts: list[str] = []
    while match := _CONTRACTION.fullmatch(word):
        word = match[1]
        parts.append(match[2])
    return [word, *reversed(parts)]
