"""Flax's msgpack files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bayestl.pretrained._weights import Ask, FileContents, flatten, mapped, native, numeric, unique


def read(path: Path, ask: Ask) -> FileContents:
    """The arrays of a file that ``flax.serialization`` wrote, under their paths.

    Msgpack knows numbers, text, lists and maps; Flax adds arrays, complex numbers and NumPy scalars, each made with
    ``np.frombuffer``, which refuses objects. So nothing in such a file can run.
    """
    from flax import serialization
    from msgpack.exceptions import UnpackException

    data = mapped(path)
    try:
        tree = serialization.msgpack_restore(data)  # pyright: ignore[reportArgumentType]  # any buffer does
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
