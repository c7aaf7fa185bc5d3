"""Tokenizers of Hugging Face's ``tokenizers``, from their files."""

from __future__ import annotations

import collections
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayestl._arguments import check_arguments
from bayestl._limits import check_regular
from bayestl.data.text._coverage import Coverage

_MOST_BYTES = 1 << 26
_PADDINGS = ("[PAD]", "<pad>", "<padding>", "<|padding|>")
_SHOWN = 20


class Tokenizer:
    """A published tokenizer; made by :func:`tokenizer`. Give it to :func:`encode`, or its ``split`` to what splits.

    Attributes:
        words: the word (or piece of one) of each row.
        padding: the number of padding.
        unknown: the number that stands for what cannot be written, None where there is none.
        num_special: how many numbers mark the beginning and the end of a text.
    """

    def __init__(self, library: Any):
        padding = library.padding
        library.no_padding()
        library.no_truncation()
        self._library = library
        rows = library.get_vocab(with_added_tokens=True)
        names = {number: word for word, number in rows.items()}
        self.words: tuple[str, ...] = tuple(names.get(row, "") for row in range(max(names) + 1))
        known = [rows[name] for name in _PADDINGS if name in rows]
        self.padding: int = padding["pad_id"] if padding else known[0] if known else 0
        name = getattr(library.model, "unk_token", None)
        self.unknown: int | None = rows.get(name) if isinstance(name, str) else None
        self.num_special: int = library.num_special_tokens_to_add(False)

    def __len__(self) -> int:
        return len(self.words)

    def split(self, text: str) -> list[str]:
        """The pieces of a text, without the marks of its beginning and end."""
        return list(self._library.encode(text, add_special_tokens=False).tokens)

    def numbered(self, texts: Sequence[str], length: int | None) -> tuple[list[list[int]], list[int], Coverage]:
        """The numbers of each text with its marks, cut to ``length``; how many pieces each has; and how many are known.

        Raises:
            ValueError: a length that has no room for the marks.
        """
        if length is not None and length <= self.num_special:
            raise ValueError(f"length is {length}, and {self.num_special} numbers mark beginning and end; give more")
        pieces = self._library.encode_batch(list(texts), add_special_tokens=False)
        lengths = [len(piece.ids) for piece in pieces]
        counts: collections.Counter[str] = collections.Counter()
        unknown: collections.Counter[str] = collections.Counter()
        rows = []
        for text, piece in zip(texts, pieces, strict=True):
            counts.update(piece.tokens)
            unknown.update(
                text[slice(*where)]
                for number, where in zip(piece.ids, piece.offsets, strict=True)
                if number == self.unknown
            )
            if length is not None and len(piece.ids) > length - self.num_special:
                piece.truncate(length - self.num_special)
            rows.append(list(self._library.post_process(piece).ids))
        total, types = counts.total(), len(counts)
        without = types - (self.unknown is not None and self.words[self.unknown] in counts)
        coverage = Coverage(
            total,
            types,
            1 - unknown.total() / total if total else float("nan"),
            without / types if types else float("nan"),
            tuple(unknown.most_common(_SHOWN)),
            0,
        )
        return rows, lengths, coverage

    def __repr__(self) -> str:
        return f"Tokenizer({len(self):,} rows, padding {self.padding}, unknown {self.unknown})"


def tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """A tokenizer from a ``tokenizer.json`` of Hugging Face's library ``tokenizers``.

    Padding and truncation that the file asks for are left to :func:`encode`. Needs the extra: ``pip install
    "bayestl[text]"``.

    Args:
        path: the file.

    Raises:
        ImportError: ``tokenizers`` is not installed.
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, or a damaged one.

    Example:
        >>> btl.data.text.tokenizer("nowhere.json")
        Traceback (most recent call last):
        ...
        FileNotFoundError: there is no file 'nowhere.json'; give the path of one
    """
    check_arguments(tokenizer, locals())
    path = Path(path)
    check_regular(path)
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, more than the {_MOST_BYTES:,} of a tokenizer")
    try:
        tokenizers: Any = importlib.import_module("tokenizers")
    except ImportError as error:
        raise ImportError(
            "reading a tokenizer.json needs the package tokenizers: pip install 'bayestl[text]'; or give vocabulary a "
            "split of your own"
        ) from error
    try:
        library = tokenizers.Tokenizer.from_str(path.read_bytes().decode())
    except Exception as error:  # whatever the library raises for a file that it cannot read
        raise ValueError(
            f"{path} is no tokenizer.json of the library tokenizers, or a damaged one ({str(error)[:200]})"
        ) from None
    return Tokenizer(library)
