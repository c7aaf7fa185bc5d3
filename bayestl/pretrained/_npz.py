"""NumPy's ``.npz`` and ``.npy``: numbers only, never objects, as views on the file where it is not compressed."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bayestl.pretrained._weights import Ask, FileContents, mapped, native, num_bytes, numeric
from bayestl.pretrained._zip import Archive, View


class _Header(NamedTuple):
    """What stands before the numbers of one array."""

    shape: tuple[int, ...]
    order: str
    dtype: np.dtype
    length: int

    def array(self, name: str, content: memoryview) -> np.ndarray:
        if len(content) - self.length != num_bytes(self.shape, self.dtype):
            raise ValueError(
                f"array {name[:200]!r} has {len(content) - self.length:,} bytes of numbers, where {self.dtype} of "
                f"shape {self.shape} takes {num_bytes(self.shape, self.dtype):,}: the file is cut short or damaged"
            )
        if not num_bytes(self.shape, self.dtype):
            return np.empty(self.shape, self.dtype)
        return native(np.ndarray(self.shape, self.dtype, content, self.length, order=self.order))  # pyright: ignore


def read_npy(path: Path, ask: Ask) -> FileContents:
    """The one array of an ``.npy`` file, under the file's name."""
    data = mapped(path)
    header = _header(path.stem, data)
    names = ask.choose({path.stem: num_bytes(header.shape, header.dtype)}, len(data))
    return FileContents({short: header.array(name, data) for name, short in names.items()}, "npy", {})


def read_npz(archive: Archive, ask: Ask) -> FileContents:
    """The arrays of an ``.npz`` file."""
    members = {name.removesuffix(".npy"): name for name in archive.members}
    names = ask.choose({name: archive.size(member) for name, member in members.items()}, archive.num_bytes)
    most = max(ask.max_bytes, archive.num_bytes)
    arrays = {}
    for name, short in names.items():
        content = archive.member(members[name], most)
        arrays[short] = _header(name, content).array(name, content)
    return FileContents(arrays, "npz", {})


def _header(name: str, content: memoryview) -> _Header:
    file = View(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version} is for records, which are not weights")
        shape, fortran_order, dtype = readers[version](file)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"the header of array {name[:200]!r} cannot be read: {str(error)[:200]}") from error
    if dtype.hasobject:
        raise ValueError(
            f"array {name[:200]!r} holds Python objects, which are pickles that could run any code; nothing was run. "
            "Save arrays of numbers"
        )
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"array {name[:200]!r} has a shape that is not all integers >= 0")
    return _Header(shape, "F" if fortran_order else "C", numeric(name, dtype), file.tell())
