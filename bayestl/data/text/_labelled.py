"""Labelled texts, from files with one example a line and from records."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from bayestl._arguments import check_arguments
from bayestl._limits import check_regular

_MARK = codecs.BOM_UTF8
_LARGEST = 2**31 - 1


class Labelled(NamedTuple):
    """Texts and their labels.

    Attributes:
        texts: N texts.
        labels: (N,), int32.
    """

    texts: tuple[str, ...]
    labels: Int[np.ndarray, " texts"]


def read_labelled(path: str | os.PathLike[str], encoding: str = "utf-8") -> Labelled:
    """The texts of a file that holds "label text" on every line, such as ``1 a triumph of wit over plot``.

    Lines end at newlines and at nothing else, whatever else counts as a line's end in the encoding. A line may hold a
    label and no text.

    Args:
        path: the file.
        encoding: of the texts; older sets are ``"latin-1"``. One in which a newline is one byte.

    Raises:
        ValueError: an empty file, a line that does not begin with a whole number of at least 0, or is not in
            ``encoding``; the message names the line.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "reviews.all"
        ...     size = path.write_text("1 a triumph of wit over plot\\n0 tedious\\n")
        ...     data = btl.data.text.read_labelled(path)
        >>> data.texts, data.labels
        (('a triumph of wit over plot', 'tedious'), array([1, 0], dtype=int32))
    """
    check_arguments(read_labelled, locals())
    path = Path(path)
    check_regular(path)
    try:
        one_byte = "\n".encode(encoding) == b"\n"
    except LookupError:
        raise ValueError(f"encoding is {encoding!r}, which Python does not know; give 'utf-8' or 'latin-1'") from None
    if not one_byte:
        raise ValueError(f"in the encoding {encoding!r} a newline is not one byte; convert the file to UTF-8")
    lines = path.read_bytes().removeprefix(_MARK).split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(f"{path} is empty")
    texts, labels = [], []
    for number, line in enumerate(lines, 1):
        label, _, rest = line.rstrip(b"\r").partition(b" ")
        if not label.isdigit() or len(label) > 10 or int(label) > _LARGEST:
            raise ValueError(
                f"{path}: line {number} begins with {label[:40]!r}; every line is a label, a whole number from 0 on, a "
                "blank and the text"
            )
        try:
            texts.append(rest.decode(encoding))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: line {number} is not in {encoding}: byte {rest[error.start]:#04x}; many older sets are in "
                "'latin-1', give it as encoding="
            ) from None
        labels.append(int(label))
    return Labelled(tuple(texts), np.array(labels, np.int32))


def from_records(records: Any, text: str = "text", label: str = "label") -> Labelled:
    """The texts and labels of records: those of :func:`~bayestl.data.tfds`, or any that are read by number.

    Args:
        records: with ``__len__`` and ``__getitem__``, which gives a dict.
        text: the feature that holds a text, as TFDS gives it (UTF-8 bytes) or as a string.
        label: the feature that holds a whole number.

    Raises:
        ValueError: no records, no such feature, a text that is not UTF-8, a label that is no whole number.
        TypeError: no records, or a feature that is no text.

    Example:
        >>> records = [{"text": b"a triumph", "label": 1}, {"text": b"tedious", "label": 0}]
        >>> btl.data.text.from_records(records).texts
        ('a triumph', 'tedious')
    """
    check_arguments(from_records, locals(), skip=("records",))
    if isinstance(records, str | bytes) or not (hasattr(records, "__len__") and hasattr(records, "__getitem__")):
        raise TypeError(
            f"records is a {type(records).__name__}; give records that are read by number, as data.tfds does"
        )
    if not len(records):
        raise ValueError("records holds none")
    texts, labels = [], []
    for number in range(len(records)):
        record = _record(records, number, (text, label))
        texts.append(_text(record[text], number, text))
        value = np.asarray(record[label])
        if value.ndim or value.dtype.kind not in "iub" or not 0 <= int(value) <= _LARGEST:
            raise ValueError(
                f"feature {label!r} of record {number} is {str(value)[:40]}; labels are whole numbers from 0"
            )
        labels.append(int(value))
    return Labelled(tuple(texts), np.array(labels, np.int32))


def _record(records: Any, number: int, names: tuple[str, str]) -> Any:
    try:
        record = records[number]
    except (KeyError, TypeError, IndexError):
        raise TypeError(f"records cannot be read by number: there is no record {number}") from None
    for name in names:
        if not hasattr(record, "keys") or name not in record:
            have = ", ".join(map(repr, record)) if hasattr(record, "keys") else f"a {type(record).__name__}"
            raise ValueError(f"record {number} has no feature {name!r}; it holds {have}")
    return record


def _text(value: Any, number: int, name: str) -> str:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, bytes):
        raise TypeError(f"feature {name!r} of record {number} is a {type(value).__name__}; a text is bytes or a string")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"feature {name!r} of record {number} is not UTF-8, from its byte {error.start + 1} on; decode it yourself"
        ) from None
