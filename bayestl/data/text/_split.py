"""A text to words."""

from __future__ import annotations

import re

from bayestl._arguments import check_arguments
from bayestl._words import split_contraction

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'"})
_EDGES = re.compile(r"([(\[{<\"“«¿¡]*)(.*?)([)\]}>\"”»,;:!?.…]*)", re.DOTALL)
_LETTERS_WITH_POINTS = re.compile(r"(?:[^\W\d_]\.)+")
_CLOSING = re.compile(r"\.+|[^.]")
_ABBREVIATIONS = frozenset(["dr.", "etc.", "jr.", "mr.", "mrs.", "ms.", "prof.", "sr.", "st.", "vs."])


def split_words(text: str) -> list[str]:
    """The words of a text: small letters, contractions and punctuation apart, as the Penn treebank has them.

    ``doesn't`` becomes ``does n't``, and ``film's`` ``film 's``: so published vectors (GloVe among them) are written,
    and otherwise every negation is an unknown word. Quotes, brackets and punctuation at the edges of a word are words
    of their own; within a word (``well-made``, ``3.5``, ``u.s.``) they stay. A text that is split already stays as it
    is, but for large letters and contractions.

    Example:
        >>> btl.data.text.split_words('It doesn\\'t work, "well-made" or not.')
        ['it', 'does', "n't", 'work', ',', '"', 'well-made', '"', 'or', 'not', '.']
    """
    check_arguments(split_words, locals())
    words: list[str] = []
    for piece in text.lower().translate(_APOSTROPHES).split():
        words.extend(_parts(piece))
    return words


def _parts(piece: str) -> list[str]:
    match = _EDGES.fullmatch(piece)
    assert match is not None  # all three groups may be empty
    opening, word, closing = match.groups()
    if not word:
        return _CLOSING.findall(piece)
    if closing.startswith(".") and (_LETTERS_WITH_POINTS.fullmatch(word + ".") or word + "." in _ABBREVIATIONS):
        word, closing = word + ".", closing[1:]
    return [*opening, *split_contraction(word), *_CLOSING.findall(closing)]
