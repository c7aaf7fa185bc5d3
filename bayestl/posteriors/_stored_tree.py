"""Pytrees of arrays in a file: what the header says of each, checked, and the arrays again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _containers, _tree
from bayestl._types import Params

# Numbers that safetensors and NumPy share. bfloat16 is written as the bits that it is.
_DTYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "U16", "bool": "BOOL",
    "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip
_KEY_KINDS = ("threefry2x32", "rbg", "unsafe_rbg")


class StoredLeaf(NamedTuple):
    """One array of a tree.

    Attributes:
        path: of the leaf in its tree.
        shape: of the array in the file.
        dtype: of the leaf; ``"key:..."`` for random keys, stored as their numbers.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str


class StoredTree(NamedTuple):
    """A tree as a header describes it.

    Attributes:
        prefix: what the names of its arrays begin with.
        containers: dicts, lists, tuples and None around the leaves, or ``"other"``.
        leaves: in the order of ``jax.tree.leaves``.
    """

    prefix: str
    containers: Any
    leaves: tuple[StoredLeaf, ...]

    @property
    def paths(self) -> list[str]:
        """The paths of the leaves."""
        return [leaf.path for leaf in self.leaves]


def store(prefix: str, tree: Any) -> tuple[StoredTree, dict[str, np.ndarray]]:
    """A tree's description, and its arrays by name.

    Raises:
        ValueError: tracers.
        TypeError: a leaf that is no array of numbers.
    """
    if not _tree.is_concrete(tree):
        raise ValueError("a posterior with tracers cannot be saved; save it outside jit, vmap and grad")
    leaves, tensors = [], {}
    for path, leaf in _tree.by_paths(tree).items():
        array, dtype = _plain(path, leaf)
        leaves.append(StoredLeaf(path, array.shape, dtype))
        tensors[f"{prefix}/{path}"] = array
    return StoredTree(prefix, _containers.to_json(jax.tree.structure(tree)), tuple(leaves)), tensors


def _plain(path: str, leaf: Any) -> tuple[np.ndarray, str]:
    """A leaf as an array that a file holds, and its dtype's name."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf), order="C"), f"key:{jax.random.key_impl(leaf)}"
    array = np.asarray(leaf, order="C")
    name = str(array.dtype)
    if name not in _DTYPES:
        raise TypeError(f"{path!r} is a {type(leaf).__name__} of dtype {name}, which cannot be saved; give arrays")
    return (array.view(np.uint16), name) if name == "bfloat16" else (array, name)


def to_json(tree: StoredTree) -> dict[str, Any]:
    """For the header."""
    leaves = [{"path": leaf.path, "shape": list(leaf.shape), "dtype": leaf.dtype} for leaf in tree.leaves]
    return {"prefix": tree.prefix, "containers": tree.containers, "leaves": leaves}


def from_json(entry: Any) -> StoredTree:
    """From a header.

    Raises:
        ValueError: anything that :func:`to_json` would not have written.
    """
    if not isinstance(entry, dict) or set(entry) != {"prefix", "containers", "leaves"}:
        raise ValueError("a tree in its header has other fields than prefix, containers and leaves")
    if not isinstance(entry["prefix"], str) or not isinstance(entry["leaves"], list):
        raise ValueError("a tree in its header has no prefix, or no list of leaves")
    leaves = tuple(_leaf_from_json(leaf) for leaf in entry["leaves"])
    if len({leaf.path for leaf in leaves}) != len(leaves):
        raise ValueError(f"two leaves of {entry['prefix']!r} have one path")
    return StoredTree(entry["prefix"], entry["containers"], leaves)


def _leaf_from_json(entry: Any) -> StoredLeaf:
    if not isinstance(entry, dict) or set(entry) != {"path", "shape", "dtype"} or not isinstance(entry["path"], str):
        raise ValueError("a leaf in its header has other fields than path, shape and dtype")
    shape, dtype = entry["shape"], entry["dtype"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{entry['path']!r} has the shape {shape!r}, which is none")
    if not isinstance(dtype, str) or (dtype not in _DTYPES and dtype.removeprefix("key:") not in _KEY_KINDS):
        raise ValueError(f"{entry['path']!r} has the dtype {dtype!r}, which is none that can be saved")
    return StoredLeaf(entry["path"], tuple(shape), dtype)


def announced(tree: StoredTree) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name to shape and safetensors dtype of every array."""
    return {f"{tree.prefix}/{leaf.path}": (leaf.shape, _DTYPES.get(leaf.dtype, "U32")) for leaf in tree.leaves}


def load(tree: StoredTree, tensors: Mapping[str, np.ndarray], like: Params | None = None, part: bool = False) -> Any:
    """The tree again.

    Args:
        tree: its description.
        tensors: by name.
        like: a tree whose containers it takes, its leaves found by path; None for the containers of the file.
        part: whether the file may hold some of the leaves of ``like`` alone.

    Raises:
        ValueError: containers that contradict the paths, or that no file gives back; other paths than ``like`` has.
    """
    values = {leaf.path: _restored(leaf, tensors[f"{tree.prefix}/{leaf.path}"]) for leaf in tree.leaves}
    if like is not None:
        names = set(_tree.paths(like))
        missing, extra = sorted(names - set(values)), sorted(set(values) - names)
        if extra or (missing and not part):
            raise ValueError(
                f"the file and the network have different parameters: only in the file {_tree.shown(extra, 4)}; "
                f"only in the network {_tree.shown([] if part else missing, 4)}"
            )
        return _tree.restructure(values, like)
    if tree.containers == _containers.OTHER:
        raise ValueError(
            "it was saved from containers other than dict, list and tuple; load it with the network, "
            "btl.load(path, net), whose containers it then takes"
        )
    try:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(_containers.from_json(tree.containers))
    except TypeError as error:
        raise ValueError(f"containers is no tree: {error}") from error
    if [_tree.path_string(path) for path, _ in leaves] != tree.paths or [i for _, i in leaves] != [*range(len(leaves))]:
        raise ValueError("containers and the paths of the leaves disagree")
    return jax.tree.unflatten(treedef, [values[path] for path in tree.paths])


def _restored(leaf: StoredLeaf, array: np.ndarray) -> jax.Array:
    if leaf.dtype.startswith("key:"):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=leaf.dtype.removeprefix("key:"))
    return jnp.asarray(array.view(jnp.bfloat16) if leaf.dtype == "bfloat16" else array)
