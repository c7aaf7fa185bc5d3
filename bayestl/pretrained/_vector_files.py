"""Which kind of file of word vectors it is, told from its first bytes, and its entries one by one."""

from __future__ import annotations

import codecs
import collections
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

MOST_LINE = 1 << 20
_MOST_WORD = 1 << 16
_MOST_DIMENSION = 1 << 17
_CHUNK = 1 << 20
# Deflate packs at most this many bytes into one.
_MOST_UNPACKED = 1032
_MARK = codecs.BOM_UTF8
_HEADER = re.compile(rb"(\d+)[ \t]+(\d+)[ \t]*\r?(?:\n|\Z)")
_BLANK = b" \t\r\n"
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SEPARATE_LINES = 100
_OTHERS = {
    b"\xba\x16\x4f\x2f": "fastText's own model, which holds more than vectors and is not read; take the .vec file that "
    "comes with it, or write one with fastText's print-word-vectors",
    b"PK\x03\x04": "a zip archive; unpack it, and give the file in it",
    b"\x80": "a pickle, which is never run; save the vectors in word2vec's format instead",
    b"\x93NUMPY": "an array without words; a word2vec or GloVe file has both",
    b"\x89HDF": "an HDF5 file, which is not read for words; write word2vec's format instead",
    b"version https://git-lfs": "a Git LFS pointer, not the vectors; fetch them with `git lfs pull`",
}


class Layout(NamedTuple):
    """What the first bytes of a file say.

    Attributes:
        format: as in :class:`WordVectors`.
        count: how many vectors the header announces; None without a header.
        dimension: how many numbers each has.
        start: bytes of the header, and of a mark of UTF-8 before it.
    """

    format: str
    count: int | None
    dimension: int
    start: int


class Entry(NamedTuple):
    """One word and its numbers, unparsed: text, or float32."""

    number: int
    word: bytes
    numbers: list[bytes] | bytes


def shown(word: bytes | str) -> str:
    """A word, or its beginning, as it goes into a message."""
    return repr(word[:80])


def layout(head: bytes, num_bytes: int, is_packed: bool, limit: int | None) -> Layout:
    """The layout of a file that begins with ``head``.

    Args:
        head: the first ``MOST_LINE`` bytes, unpacked.
        num_bytes: of the file.
        is_packed: whether the file is a gzip file.
        limit: how many vectors are to be read; None for all.

    Raises:
        ValueError: an unknown kind of file, or a header that announces more than the file can hold.
    """
    mark = len(_MARK) if head.startswith(_MARK) else 0  # of UTF-8, as some editors write it
    head = head[mark:]
    if not head.strip(_BLANK):
        raise ValueError("it is empty; copy it again")
    for magic, words in _OTHERS.items():
        if head.startswith(magic):
            raise ValueError(f"it is {words}")
    header = _HEADER.match(head)
    if header is None:
        return Layout("glove", None, _separate_numbers(head), mark)
    if max(len(number) for number in header.groups()) > 18:
        raise ValueError(f"its header {shown(header.group())} announces numbers that no file can hold")
    count, dimension = (int(number) for number in header.groups())
    if count < 1 or dimension < 1:
        raise ValueError(f"its header announces {count:,} vectors of {dimension:,} numbers; there is nothing to read")
    rest = head[header.end() :]
    is_binary = _is_binary(rest, min(dimension, MOST_LINE))
    smallest = 4 * dimension + 2 if is_binary else 2 * dimension + 1
    asked = count if limit is None else min(count, limit)
    available = (num_bytes * _MOST_UNPACKED if is_packed else num_bytes) - header.end() + 1  # a last newline may lack
    if dimension > _MOST_DIMENSION or asked * smallest > available:
        raise ValueError(
            f"its header announces {count:,} vectors of {dimension:,} numbers, which take {count * smallest:,} bytes "
            f"or more, and the file has {num_bytes:,}: it is cut short, or the header is wrong; copy it again"
        )
    first = rest.split(b"\n", 1)[0].rstrip(b"\r")
    text = "fasttext" if first.endswith(b" ") else "word2vec"
    return Layout("word2vec-binary" if is_binary else text, count, dimension, mark + header.end())


def _is_binary(rest: bytes, dimension: int) -> bool:
    """Whether float32 numbers follow the first word, and not text."""
    rest = rest.lstrip(b"\n")
    line = rest.split(b"\n", 1)[0].rstrip(_BLANK)
    if _trailing_numbers(line) >= dimension:
        return False
    start = rest.find(b" ") + 1
    body = rest[start : start + 4 * dimension]
    try:
        body.decode()
    except UnicodeDecodeError as error:
        # A letter of several bytes may be cut off at the end.
        return error.start < len(body) - 4 or _CONTROL.search(body) is not None
    return _CONTROL.search(body) is not None


def _trailing_numbers(line: bytes) -> int:
    """How many fields at the end of a line are numbers; the first field is a word in any case."""
    count = 0
    for field in reversed(line.split(b" ")[1:]):
        if not _is_number(field):
            break
        count += 1
    return count


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _separate_numbers(head: bytes) -> int:
    """The dimension of a file without a header: what most of the first lines have, since a word may end in a number."""
    lines = head.split(b"\n", _SEPARATE_LINES)[:_SEPARATE_LINES]
    complete = lines[:-1] if len(lines) > 1 else lines
    counts = collections.Counter(_trailing_numbers(line.rstrip(_BLANK)) for line in complete)
    dimension = counts.most_common(1)[0][0]
    if dimension < 1:
        raise ValueError(
            f"it begins with {shown(head[:40])}, which is not a known kind of word vectors: word2vec as text or .bin, "
            "GloVe, fastText .vec, each also .gz"
        )
    return dimension


def entries(file: BinaryIO, layout: Layout) -> Iterator[Entry]:
    """The entries of a file whose header has been read, and a check that there are as many as announced.

    Raises:
        ValueError: an entry that is cut short or has too few or too many numbers, too few or too many entries.
    """
    one_by_one = (_records if layout.format == "word2vec-binary" else _lines)(file, layout)
    number = 0
    for entry in one_by_one:
        number = entry.number
        if layout.count is not None and number > layout.count:
            raise ValueError(
                f"its header announces {layout.count:,} vectors, and another one follows them, of "
                f"{shown(entry.word)}; limit={layout.count} reads what is announced, or mend the header"
            )
        yield entry
    if layout.count is not None and number < layout.count:
        rest = f", or limit={number} reads what is there" if number else ""
        raise ValueError(
            f"its header announces {layout.count:,} vectors, and it ends after {number:,}: it is cut short; copy it "
            f"again{rest}"
        )


def _lines(file: BinaryIO, layout: Layout) -> Iterator[Entry]:
    """Entries of a text file. Lines are split at newlines alone, and fields from the right: words may hold blanks."""
    dimension, offset = layout.dimension, 0 if layout.count is None else 1
    number, empty = 0, 0
    while line := file.readline(MOST_LINE + 1):
        at = number + empty + 1 + offset
        if len(line) > MOST_LINE:
            raise ValueError(f"line {at} has more than the {MOST_LINE:,} bytes allowed; it is no file of word vectors")
        fields = line.rstrip(_BLANK).rsplit(b" ", dimension)
        if fields == [b""]:
            empty += 1
            continue
        if empty:
            raise ValueError(f"line {at - 1} is empty, and others follow; the file is damaged there, copy it again")
        number += 1
        word = fields[0]
        if len(fields) <= dimension:
            raise _other_dimension(at, word.split(b" ", 1)[0], len(fields) - 1, dimension, line)
        if b" " in word and _is_number(word.rsplit(b" ", 1)[1]):
            more = dimension + _trailing_numbers(word)
            raise _other_dimension(at, word.split(b" ", 1)[0], more, dimension, line)
        yield Entry(number, word, fields[1:])


def _other_dimension(at: int, word: bytes, count: int, dimension: int, line: bytes) -> ValueError:
    cut = "" if line.endswith(b"\n") else ", its last, without a newline: the file is cut short"
    return ValueError(
        f"line {at}, of the word {shown(word)}, has {count} numbers, and the vectors have {dimension}{cut}; copy the "
        f"file again, or limit= reads what comes before"
    )


def _records(file: BinaryIO, layout: Layout) -> Iterator[Entry]:
    """Entries of a binary file: a word, a blank, float32 numbers of the small end first, a newline or none."""
    data, position, size = b"", 0, 4 * layout.dimension
    number = 0
    while True:
        end = -1
        while (end := data.find(b" ", position)) < 0 or len(data) < end + 1 + size:
            if end < 0 and len(data) - position > _MOST_WORD:
                raise ValueError(
                    f"vector {number + 1} has a word of more than {_MOST_WORD:,} bytes; the file is damaged there"
                )
            more = file.read(max(_CHUNK, size))
            if not more:
                rest = data[position:].strip(b"\n")
                if rest:
                    word = rest.split(b" ", 1)[0]
                    raise ValueError(
                        f"vector {number + 1}, of the word {shown(word)}, should have {size} bytes, and the file ends "
                        f"before; it is cut short: copy it again, or limit={number} reads what comes before"
                    )
                return
            data, position = data[position:] + more, 0
        number += 1
        word = data[position:end].lstrip(b"\n")
        if b"\n" in word:  # which no word holds
            raise ValueError(shifted(number, word, layout))
        yield Entry(number, word, data[end + 1 : end + 1 + size])
        position = end + 1 + size


def shifted(number: int, word: bytes, layout: Layout) -> str:
    """What is said of a word that begins within the numbers of another entry."""
    return (
        f"vector {number} has {shown(word)} where a word was expected; the file is damaged before it, or its vectors "
        f"have not the {layout.dimension} numbers that the header states: copy it again, or mend the header"
    )


def is_shifted(entry: Entry, layout: Layout) -> bool:
    """Whether an entry of a binary file begins within the numbers of another one: its word is none."""
    return layout.format == "word2vec-binary" and _CONTROL.search(entry.word) is not None


def parsed(entry: Entry, layout: Layout) -> np.ndarray:
    """The numbers of an entry, float32.

    Raises:
        ValueError: one that is no number, or not finite.
    """
    numbers = entry.numbers
    if isinstance(numbers, bytes):
        values = np.frombuffer(numbers, "<f4").astype(np.float32)
    else:
        try:
            with np.errstate(over="ignore"):
                values = np.fromiter(map(float, numbers), np.float64, len(numbers)).astype(np.float32)
        except ValueError:
            field = next(field for field in numbers if not _is_number(field))
            raise ValueError(
                f"{place(entry, layout)} has {shown(field)} where a number was expected; the file is damaged there, "
                "copy it again"
            ) from None
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(
            f"{place(entry, layout)} has {values[bad]} as number {bad + 1} of {len(values)}; vectors are finite: leave "
            "this entry out of the file"
        )
    return values


def place(entry: Entry, layout: Layout) -> str:
    """Where an entry stands, in words."""
    if layout.format == "word2vec-binary":
        return f"vector {entry.number}, of the word {shown(entry.word)},"
    return f"line {entry.number + (0 if layout.count is None else 1)}, of the word {shown(entry.word)},"
