"""What a reader of weight files gives back, and what it is asked for."""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from bayestl._limits import check_regular

_MOST_NODES = 1_000_000
_MOST_LETTERS = 1 << 26
_DEEPEST = 100
_MOST_AXES = 64


@dataclasses.dataclass(frozen=True, repr=False)
class Weights:
    """Arrays of a weight file under flat names; made by :func:`read`.

    Attributes:
        arrays: name to array, in the order and with the dtype of the file. Treat them as read-only: most are views
            on the file, which must not change while they are in use.
        format: ``safetensors``, ``torch``, ``torch-legacy``, ``keras``, ``keras-h5``, ``keras-legacy-h5``, ``hdf5``,
            ``npz``, ``npy``, ``flax-msgpack`` or ``orbax``.
        source: where they came from.
        metadata: what else the file says, different for every format.
    """

    arrays: dict[str, np.ndarray]
    format: str
    source: str
    metadata: dict[str, Any]

    @property
    def size(self) -> int:
        """How many numbers the arrays hold together."""
        return sum(array.size for array in self.arrays.values())

    def __repr__(self) -> str:
        return f"Weights({len(self.arrays)} arrays, {self.size:,} numbers, {self.format}, {self.source!r})"


class FileContents(NamedTuple):
    """What one reader found in one file."""

    arrays: dict[str, np.ndarray]
    format: str
    metadata: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ask:
    """Which part of a file is wanted, and how much memory it may take.

    Attributes:
        key: only the arrays below this name; ``""`` for all; ``None`` for the reader's own choice.
        max_bytes: the most that the arrays may take, where that is more than the file.
    """

    key: str | None
    max_bytes: int

    def choose(self, sizes: Mapping[str, int], file_bytes: int) -> dict[str, str]:
        """The names to read, and the name that each gets: that in the file, without the key.

        Args:
            sizes: bytes of every array in the file.
            file_bytes: bytes of the file.

        Raises:
            ValueError: there are no arrays, none below ``key``, or they take too much memory.
        """
        if not sizes:
            raise ValueError("it holds no arrays")
        prefix = f"{self.key}/" if self.key else ""
        names = {name: name.removeprefix(prefix) for name in sizes if name.startswith(prefix)}
        if not names:
            raise ValueError(f"it has no arrays below key={self.key!r}; it has {parts(sizes)}")
        total, most = sum(sizes[name] for name in names), max(self.max_bytes, file_bytes)
        if total > most:
            raise ValueError(
                f"its arrays take {total:,} bytes, the file {file_bytes:,}: more than max_bytes={self.max_bytes:,} "
                "allows; if this is as it should be, give a larger max_bytes"
            )
        return names


def parts(names: Mapping[str, Any]) -> str:
    """The first components of ``names`` and how many arrays each holds, in words."""
    counts: dict[str, int] = {}
    for name in names:
        first = name.split("/", 1)[0][:80]
        counts[first] = counts.get(first, 0) + 1
    shown = [f"{first!r} ({count})" for first, count in counts.items()]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def flatten(tree: Any) -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts, lists and tuples with their names, joined by "/".

    Raises:
        ValueError: nested too deeply (or in itself), too large, names that take too much memory together, or a key
            that is neither text nor an integer.
    """
    num_nodes = num_letters = 0

    def visit(prefix: str, node: Any, depth: int) -> Iterator[tuple[str, Any]]:
        nonlocal num_nodes, num_letters
        num_nodes += 1
        if depth > _DEEPEST or num_nodes > _MOST_NODES:
            raise ValueError(f"its contents are nested deeper than {_DEEPEST} or have more than {_MOST_NODES:,} parts")
        if isinstance(node, dict):
            children = node.items()
        elif isinstance(node, list | tuple):
            children = enumerate(node)
        else:
            yield prefix, node
            return
        for key, child in children:
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise ValueError(f"a key at {prefix[:80]!r} is a {type(key).__name__}; names are text or integers")
            name = str(key)
            num_letters += len(prefix) + len(name)  # a long key stands in the name of everything below it
            if num_letters > _MOST_LETTERS:
                raise ValueError(f"its names take more than {_MOST_LETTERS:,} letters together")
            yield from visit(f"{prefix}/{name}" if prefix else name, child, depth + 1)

    return visit("", tree, 0)


def unique(pairs: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of ``pairs``; a name that comes twice is an error."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"the name {name[:200]!r} comes twice")
        made[name] = value
    return made


def num_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of an array, without overflow."""
    return math.prod(shape) * dtype.itemsize


def is_shape(numbers: Any) -> bool:
    """Whether these are the lengths of axes that an array can have; without bounds their product takes for ever."""
    return len(numbers) <= _MOST_AXES and all(type(n) is int and 0 <= n < 2**63 for n in numbers)


def numeric(name: str, dtype: np.dtype) -> np.dtype:
    """The dtype that the numbers of an array have, where they are numbers.

    NumPy stores bfloat16 as bytes without a meaning, ``V2``, so those are taken for bfloat16.

    Raises:
        ValueError: objects, text, dates or records.
    """
    if dtype == np.dtype("V2"):
        return np.dtype(ml_dtypes.bfloat16)
    if dtype.kind in "biufc" or dtype.isbuiltin == 2:  # 2: a numeric dtype that ml_dtypes adds
        return dtype
    raise ValueError(f"array {name[:200]!r} has dtype {str(dtype)[:200]}; weights are bool, int, float or complex")


def native(array: np.ndarray) -> np.ndarray:
    """The array as JAX takes it: aligned, in the byte order of the machine; a copy only where that differs."""
    native = array.dtype.newbyteorder("=")
    array = array.view(native) if array.dtype.isnative else array.astype(native)
    return array if array.flags.aligned else array.copy()


def mapped(path: Path) -> memoryview:
    """The bytes of a file that is not empty, paged in when they are used."""
    check_regular(path)
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
