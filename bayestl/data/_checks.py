"""What may become a data set: numeric arrays with one common leading axis and only finite values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_keys
from bayestl._types import Inputs, Targets


def place(name: str, tree: Any) -> Any:
    """``tree`` with its leaves as arrays on the device.

    Raises:
        TypeError: a leaf is not numeric.
        ValueError: a leaf has no leading axis, has values that are not finite, or integers that JAX would wrap around.
    """
    check_keys(name, tree)
    return jax.tree_util.tree_map_with_path(lambda path, x: _place_leaf(_at(name, _tree.path_string(path)), x), tree)


def common_length(inputs: Inputs, targets: Targets) -> int:
    """The number of examples, the same in every leaf.

    Raises:
        ValueError: ``inputs`` or ``targets`` holds no array, there are no examples, or lengths differ.
    """
    lengths = {}
    for name, tree in (("inputs", inputs), ("targets", targets)):
        leaves = _tree.by_paths(tree)
        if not leaves:
            raise ValueError(f"{name} holds no arrays; give an array, or a pytree of arrays, with one row per example")
        lengths |= {_at(name, path): leaf.shape[0] for path, leaf in leaves.items()}
    first, num_examples = next(iter(lengths.items()))
    for where, length in lengths.items():
        if length != num_examples:
            raise ValueError(
                f"{first} has {num_examples} rows and {where} has {length}; "
                "every array of a data set needs one row per example along its first axis"
            )
    if num_examples == 0:
        raise ValueError(f"{first} has 0 rows: the data set is empty; give at least one example")
    return num_examples


def _at(name: str, path: str) -> str:
    return f"{name} at {path!r}" if path else name


def _place_leaf(where: str, leaf: Any) -> jax.Array:
    host = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    if not (jnp.issubdtype(host.dtype, jnp.number) or host.dtype == np.bool_):
        raise TypeError(
            f"{where} has dtype {host.dtype}; a data set holds numbers: make rows of one length, encode labels as "
            "integers 0, 1, ... (np.unique(labels, return_inverse=True)[1])"
        )
    if host.ndim == 0:
        raise ValueError(
            f"{where} is a single number without an axis of examples; "
            "a list is read as a pytree of numbers, so convert it with np.asarray first"
        )
    placed = jnp.asarray(host)
    if _tree.is_concrete(placed):
        _check_values(where, host, placed)
    return placed


def _check_values(where: str, host: Any, placed: jax.Array) -> None:
    if jnp.issubdtype(placed.dtype, jnp.inexact):
        bad = ~np.asarray(jnp.isfinite(placed))
        if bad.any():
            row = int(np.argwhere(bad)[0, 0])
            raise ValueError(
                f"{where} has {int(bad.sum())} NaN or infinite of {bad.size} values, the first in row {row}; "
                f"as {placed.dtype}; fill them in or leave those rows out"
            )
    elif placed.dtype != host.dtype and not np.array_equal(np.asarray(placed), host):
        raise ValueError(
            f"{where} has integers that do not fit {placed.dtype}, which JAX turns {host.dtype} into "
            f"(from {host.min()} to {host.max()}); number them 0, 1, ... or enable jax_enable_x64"
        )
