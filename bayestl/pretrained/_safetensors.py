"""Safetensors: a JSON header, then the numbers. The header is parsed and checked here; the arrays are views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bayestl._limits import MOST_JSON
from bayestl.pretrained._weights import Ask, FileContents, is_shape, mapped, native, num_bytes

MAX_HEADER = 100_000_000
_PLAIN = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
_EXTENDED = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}


def read(path: Path, ask: Ask) -> FileContents:
    """The arrays of a safetensors file, without copying them."""
    data = mapped(path)
    if len(data) < 8:
        raise ValueError(f"it is cut short: {len(data)} bytes, where the length of the header alone takes 8")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER or 8 + length > len(data):
        raise ValueError(
            f"it is cut short or no safetensors file: the header should take {length:,} bytes, "
            f"of which {len(data) - 8:,} are there"
        )
    if length > MOST_JSON:
        raise ValueError(f"its header takes {length:,} bytes, more than the {MOST_JSON:,} allowed")
    header = _parsed(bytes(data[8 : 8 + length]))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("the __metadata__ of its header is not an object")
    views = {name: _View.of(name, entry) for name, entry in header.items()}
    _check_cover(views, len(data) - 8 - length)
    names = ask.choose({name: view.stop - view.start for name, view in views.items()}, len(data))
    start = 8 + length
    return FileContents(
        {short: views[name].array(data, start) for name, short in names.items()}, "safetensors", metadata
    )


class _View:
    """One array as the header announces it."""

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...], start: int, stop: int):
        self.dtype, self.shape, self.start, self.stop = dtype, shape, start, stop

    @classmethod
    def of(cls, name: str, entry: Any) -> _View:
        shown = name[:200]
        try:
            code, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"its header does not say dtype, shape and data_offsets of {shown!r}") from error
        code = str(code)[:40]
        if not (is_shape(shape) and is_shape((start, stop))):
            raise ValueError(
                f"shape and offsets of {shown!r} in its header are not all integers >= 0 that an array can have"
            )
        dtype = _dtype(shown, code)
        if stop - start != num_bytes(shape, dtype):
            raise ValueError(
                f"its header gives {shown!r} {stop - start:,} bytes, where {code} of shape {shape} "
                f"takes {num_bytes(shape, dtype):,}"
            )
        return cls(dtype, shape, start, stop)

    def array(self, data: memoryview, start: int) -> np.ndarray:
        if self.start == self.stop:
            return np.empty(self.shape, self.dtype)
        return native(np.ndarray(self.shape, self.dtype.newbyteorder("<"), data, start + self.start))


def _dtype(name: str, code: str) -> np.dtype:
    if code in _PLAIN:
        return np.dtype(_PLAIN[code])
    if code in _EXTENDED:
        return np.dtype(getattr(ml_dtypes, _EXTENDED[code]))
    raise ValueError(f"{name!r} has dtype {code!r}, which is not read; {[*_PLAIN, *_EXTENDED]} are")


def _check_cover(views: dict[str, _View], total: int) -> None:
    """Arrays follow each other without a gap and fill the file, so nothing overlaps and nothing is hidden."""
    end = 0
    for name, view in sorted(views.items(), key=lambda item: (item[1].start, item[1].stop)):
        if view.start != end:
            raise ValueError(f"{name[:200]!r} starts at byte {view.start:,}, where the array before it ends at {end:,}")
        end = view.stop
    if end != total:
        raise ValueError(f"its arrays take {end:,} bytes, but {total:,} follow the header: it is cut short or damaged")


def _parsed(text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a name comes twice")
        return dict(pairs)

    try:
        header = json.loads(text.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header
