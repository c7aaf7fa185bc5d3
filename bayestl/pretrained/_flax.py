"""Flax's msgpack files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bayestl.pretrained import _msgpack
from bayestl.pretrained._weights import Ask, FileContents, flatten, is_shape, mapped, native, numeric, unique

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # codes of the extensions that flax.serialization defines
_LONGEST_DTYPE = 64
_CHUNKED = "__msgpack_chunked_array__"


def read(path: Path, ask: Ask) -> FileContents:
    """The arrays of a file that ``flax.serialization`` wrote, under their paths.

    Msgpack knows numbers, text, lists and maps; Flax adds arrays, complex numbers and NumPy scalars, each made with
    ``np.frombuffer``, which refuses objects. So nothing in such a file can run.
    """
    import msgpack
    from msgpack.exceptions import UnpackException

    data = mapped(path)
    try:
        _msgpack.check(data)
        tree = _whole(msgpack.unpackb(data, ext_hook=_extension, raw=False, strict_map_key=False))
    except (UnpackException, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"it is cut short or no msgpack file of Flax ({str(error)[:200]})") from error
    except (RecursionError, MemoryError, SyntaxError) as error:
        raise ValueError("it is nested too deeply or damaged") from error
    if not isinstance(tree, dict):
        raise ValueError(f"it holds one {type(tree).__name__}, not a tree of arrays that Flax wrote")
    leaves = unique(flatten(tree))
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items() if isinstance(leaf, np.ndarray | np.generic)}
    arrays = {name: native(array.view(numeric(name, array.dtype))) for name, array in arrays.items()}
    names = ask.choose({name: array.nbytes for name, array in arrays.items()}, len(data))
    other = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, str | int | float | bool | None)}
    return FileContents({short: arrays[name] for name, short in names.items()}, "flax-msgpack", {"other": other})


def _extension(code: int, data: bytes) -> Any:
    """What one of Flax's extensions stands for; another one is left out."""
    import msgpack

    if code == _COMPLEX:
        return complex(*msgpack.unpackb(data))
    if code not in (_ARRAY, _SCALAR):
        return None
    shape, name, buffer = msgpack.unpackb(data, raw=True)
    if len(name) > _LONGEST_DTYPE:
        raise ValueError(f"an array has a dtype whose name takes {len(name):,} letters")
    dtype = np.dtype(getattr(ml_dtypes, name.decode(), name.decode()))
    if dtype.hasobject or not is_shape(shape):
        raise ValueError(f"an array has dtype {str(dtype)[:80]} and shape {str(shape)[:80]}")
    array = np.frombuffer(buffer, dtype).reshape(shape)
    return array[()] if code == _SCALAR else array


def _whole(tree: Any) -> Any:
    """The tree with the arrays that Flax cuts into pieces, which no msgpack object may exceed, in one piece again."""
    if not isinstance(tree, dict):
        return tree
    if _CHUNKED not in tree:
        return {key: _whole(child) for key, child in tree.items()}
    shape, chunks = (tuple(tree[part][str(i)] for i in range(len(tree[part]))) for part in ("shape", "chunks"))
    if len({chunk.dtype for chunk in chunks}) != 1 or not is_shape(shape):  # one dtype, or joining them could expand
        raise ValueError("an array in pieces has pieces of several dtypes, or no shape")
    return np.concatenate(chunks).reshape(shape)
