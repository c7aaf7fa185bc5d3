"""Orbax checkpoints: folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bayestl._limits import MOST_JSON, check_regular
from bayestl.pretrained._weights import Ask, FileContents, flatten, native, num_bytes, numeric, unique

_MARKS = ("_METADATA", "manifest.ocdbt")
_PARSED = ("_METADATA", "_CHECKPOINT_METADATA", "_sharding", ".zarray", "zarr.json")
_LARGEST_CHUNK = 1 << 26


def read(path: Path, ask: Ask) -> FileContents:
    """The arrays of the tree that Orbax saved in a folder, as NumPy arrays on the host."""
    folder = _item(path)
    used = _checked_bytes(folder)
    import jax
    import orbax.checkpoint as ocp

    try:
        checkpointer = ocp.PyTreeCheckpointer()
        described = checkpointer.metadata(folder.absolute()).item_metadata
        described = getattr(described, "tree", described)
        arrays = {name: leaf for name, leaf in unique(flatten(described)).items() if hasattr(leaf, "shape")}
        sizes = {
            name: num_bytes(tuple(leaf.shape), numeric(name, np.dtype(leaf.dtype))) for name, leaf in arrays.items()
        }
        names = ask.choose(sizes, used)
        for name, leaf in arrays.items():
            _check_chunk(name, leaf, sizes[name])
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        restore_args = jax.tree.map(lambda leaf: as_numpy if hasattr(leaf, "shape") else ocp.RestoreArgs(), described)
        tree = checkpointer.restore(folder.absolute(), args=ocp.args.PyTreeRestore(restore_args=restore_args))
    except (OSError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise ValueError(
            f"it cannot be read as an Orbax checkpoint: incomplete or damaged ({_short(error)})"
        ) from error
    leaves = unique(flatten(tree))
    other = {name: leaf for name, leaf in leaves.items() if name not in sizes}
    return FileContents(
        {short: native(np.asarray(leaves[name])) for name, short in names.items()}, "orbax", {"other": other}
    )


def _checked_bytes(folder: Path) -> int:
    """Bytes of all files of a checkpoint, which are files: what waits for ever when it is opened is refused."""
    total = 0
    for item in folder.rglob("*"):
        if not item.is_dir():
            check_regular(item)
            total += item.stat().st_size
        if item.name in _PARSED and item.stat().st_size > MOST_JSON:
            raise ValueError(
                f"its {item.name} takes {item.stat().st_size:,} bytes, more than the {MOST_JSON:,} allowed"
            )
    return total


def _check_chunk(name: str, leaf: Any, size: int) -> None:
    """Raise when an array lies in chunks far larger than itself, each of which is made in memory."""
    shape = getattr(getattr(leaf, "storage", None), "chunk_shape", None) or ()
    chunk = num_bytes(tuple(shape), np.dtype(leaf.dtype)) if shape else 0
    if chunk > max(size, _LARGEST_CHUNK):
        raise ValueError(f"array {name[:200]!r} takes {size:,} bytes, and lies in chunks of {chunk:,}")


def _item(path: Path) -> Path:
    """The folder of the one tree that is saved at ``path``, or just below it."""

    def holds_tree(folder: Path) -> bool:
        return any((folder / mark).is_file() for mark in _MARKS)

    if holds_tree(path):
        return path
    inside = sorted(folder for folder in path.iterdir() if folder.is_dir())
    trees = [folder for folder in inside if holds_tree(folder)]
    if len(trees) == 1:
        return trees[0]
    if trees:
        raise ValueError(f"it holds {len(trees)} checkpoints, {[folder.name for folder in trees]}; give one of them")
    if steps := [folder.name for folder in inside if folder.name.isdigit()]:
        raise ValueError(f"it holds the checkpoints of steps {steps[:8]}; give the folder of one of them")
    raise ValueError("it is a folder that holds no Orbax checkpoint; for one file in it give filename=")


def _short(error: Any) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"
