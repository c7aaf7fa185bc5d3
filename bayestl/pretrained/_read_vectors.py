"""Files of word vectors: word2vec, GloVe and fastText, read as a stream."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._limits import check_regular
from bayestl.pretrained import _vector_files as files
from bayestl.pretrained._vectors import Skipped, WordVectors

_GZIP = b"\x1f\x8b"
_MOST_LISTED = 10_000
_FIRST_ROWS = 1024
_ERRORS = ("strict", "replace", "skip")


def read_vectors(
    path: str | os.PathLike[str],
    words: Collection[str] | None = None,
    limit: int | None = None,
    errors: str = "strict",
    *,
    max_bytes: int = 2**32,
) -> WordVectors:
    """Words and their vectors from a file of word2vec, GloVe or fastText.

    The first bytes decide which kind of file it is, never its name: word2vec's text and ``.bin``, GloVe's text without
    a header, fastText's ``.vec``, each also packed by gzip. The file is read as a stream, and only what is asked for is
    kept. Words may hold blanks; lines end at newlines and at nothing else. Of a word that comes twice the first is
    kept, and the others are listed. Headers are compared with the size of the file before memory is taken.

    Args:
        path: the file.
        words: only these; the order stays that of the file, and those that it lacks are left out.
        limit: only the first ``limit`` vectors of the file, which are those of the most frequent words in published
            ones. The rest is not looked at.
        errors: what happens to a word that is not UTF-8: ``"strict"`` raises, ``"replace"`` puts U+FFFD in the place
            of what cannot be read, ``"skip"`` leaves the word out and lists it.
        max_bytes: what a file that is smaller than its vectors (a packed one) may take of memory.

    Raises:
        ValueError: an unknown kind of file (fastText's own model, a pickle), an empty or damaged one: a line with more
            or fewer numbers, more or fewer vectors than the header announces, a number that is not finite, a word that
            is not UTF-8. The message names line and word, and says what to do.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "vectors.txt"
        ...     size = path.write_text("film 1.0 0.0\\nmovie 0.9 0.1\\nbread 0.0 1.0\\n")
        ...     vectors = btl.pretrained.read_vectors(path, limit=2)
        >>> vectors.words, vectors.vectors.shape, vectors.format
        (('film', 'movie'), (2, 2), 'glove')
    """
    check_arguments(read_vectors, locals())
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give the number of vectors to read, at least 1, or None for all")
    if errors not in _ERRORS:
        raise ValueError(f"errors is {errors!r}; give one of {', '.join(map(repr, _ERRORS))}")
    if max_bytes < 1:
        raise ValueError(f"max_bytes is {max_bytes!r}; give a positive number of bytes")
    chosen = None if words is None else _checked_words(words)
    path = Path(path)
    try:
        check_regular(path)
        return _read(path, chosen, limit, errors, max(max_bytes, path.stat().st_size))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: it is a gzip file that is cut short or damaged ({error}); copy it again") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _checked_words(words: Collection[str]) -> frozenset[str]:
    is_one = isinstance(words, str | bytes) or not isinstance(words, Collection)
    if is_one or not all(isinstance(word, str) for word in words):
        raise TypeError(
            f"words is {'one text' if isinstance(words, str) else 'no list of texts'}; give a list of words"
        )
    return frozenset(words)


def _open(path: Path) -> BinaryIO:
    with open(path, "rb") as file:
        is_packed = file.read(2) == _GZIP
    return gzip.open(path, "rb") if is_packed else open(path, "rb", buffering=1 << 20)  # type: ignore[return-value]


def _read(path: Path, chosen: frozenset[str] | None, limit: int | None, errors: str, most: int) -> WordVectors:
    with _open(path) as file:
        head, is_packed = file.read(files.MOST_LINE), isinstance(file, gzip.GzipFile)
        layout = files.layout(head, path.stat().st_size, is_packed, limit)
        file.seek(layout.start)
        known = layout.count if chosen is None and not is_packed else None
        rows = _Rows(layout.dimension, min(known or _FIRST_ROWS, limit or _FIRST_ROWS), most)
        skipped: list[Skipped] = []
        num_skipped = 0
        for entry in files.entries(file, layout):
            word, reason = _word(entry, layout, errors)
            if reason is None and chosen is not None and word not in chosen:
                pass
            elif reason is None and word not in rows.places:
                rows.add(word, files.parsed(entry, layout))
            else:
                num_skipped += 1
                if len(skipped) < _MOST_LISTED:
                    came = reason or f"the word came before, in place {rows.places[word] + 1} of those kept"
                    skipped.append(Skipped(entry.number, word[:200], came))
            if entry.number == limit:
                break
    return WordVectors(tuple(rows.places), rows.array(), layout.format, str(path), tuple(skipped), num_skipped)


def _word(entry: files.Entry, layout: files.Layout, errors: str) -> tuple[str, str | None]:
    """The word of an entry, and a reason to leave it out, or None."""
    try:
        return entry.word.decode(), None if entry.word else "there is no word"
    except UnicodeDecodeError as error:
        if files.is_shifted(entry, layout):
            raise ValueError(files.shifted(entry.number, entry.word, layout)) from None
        replaced = entry.word.decode(errors="replace")
        if errors == "replace":
            return replaced, None
        if errors == "skip":
            return replaced, "the word is not UTF-8"
        raise ValueError(
            f"{files.place(entry, layout)} has a word that is not UTF-8, from its byte {error.start + 1} on; "
            "errors='replace' reads it with a mark in that place, errors='skip' leaves it out"
        ) from None


class _Rows:
    """Words and vectors that grow, up to a limit."""

    def __init__(self, dimension: int, capacity: int, most: int):
        self.places: dict[str, int] = {}
        self._values = np.empty((capacity, dimension), np.float32)
        self._most, self._letters = most, 0

    def add(self, word: str, values: np.ndarray) -> None:
        number, self._letters = len(self.places), self._letters + len(word)
        if (number + 1) * values.nbytes + self._letters > self._most:
            raise ValueError(
                f"its vectors take more than the {self._most:,} bytes allowed; ask for fewer with words= or limit=, or "
                "give a larger max_bytes"
            )
        if number == len(self._values):
            self._values = np.concatenate([self._values, np.empty_like(self._values)])
        self._values[number] = values
        self.places[word] = number

    def array(self) -> np.ndarray:
        """What has been added."""
        whole = len(self.places) == len(self._values)
        return self._values if whole else self._values[: len(self.places)].copy()
