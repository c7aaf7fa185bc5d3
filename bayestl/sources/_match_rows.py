"""Tables whose rows have names: which row of the target is which row of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree

Names = tuple[Sequence[str], Sequence[str]]
"""The name of every row of the source's table, and of the target's."""


def check_rows(rows: Mapping[str, Any], target: Mapping[str, Any], new: Sequence[str]) -> None:
    """Refuse row names of what is not matched, and what are no two lists of names.

    Raises:
        ValueError: a path that the target does not have, or that is new.
        TypeError: no pair of lists of texts.
    """
    for path, names in rows.items():
        if path not in target:
            raise ValueError(f"rows names {path!r}, which the target does not have; it has {_tree.shown(list(target))}")
        if path in new:
            raise ValueError(f"{path!r} is in rows and in new; its rows are new where the source lacks their names")
        is_pair = isinstance(names, tuple | list) and len(names) == 2
        if not is_pair or not all(_is_list_of_names(each) for each in names):
            raise TypeError(f"rows[{path!r}] is to be a pair of vocabularies, the source's and the target's")


def _is_list_of_names(names: Any) -> bool:
    return isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(name, str) for name in names)


def matched_rows(path: str, names: Names, weight: Any, leaf: Any) -> tuple[jax.Array, np.ndarray]:
    """The target's table with the source's rows where they have the same name, and which rows these are.

    Raises:
        ValueError: tables whose rows differ in shape or number from their names, or no name in common.
    """
    for whose, vocabulary, table in (("source", names[0], weight), ("target", names[1], leaf)):
        if jnp.ndim(table) < 1 or len(vocabulary) != jnp.shape(table)[0]:
            raise ValueError(
                f"rows[{path!r}] names {len(vocabulary):,} rows of the {whose}'s table, whose shape is "
                f"{jnp.shape(table)}"
            )
    if jnp.shape(weight)[1:] != jnp.shape(leaf)[1:]:
        raise ValueError(
            f"the rows of {path!r} have shape {jnp.shape(weight)[1:]} in the source and {jnp.shape(leaf)[1:]} in the "
            "target; give the target rows of the source's size"
        )
    places: dict[str, int] = {}
    for place, name in enumerate(names[0]):
        if name:  # tokenizers have numbers without a name
            places.setdefault(name, place)
    from_source = np.array([places.get(name, -1) for name in names[1]])
    is_shared = from_source >= 0
    if not is_shared.any():
        raise ValueError(f"rows[{path!r}]: source and target have no name in common")
    leaf = jnp.asarray(leaf)
    taken = jnp.asarray(weight)[np.maximum(from_source, 0)].astype(leaf.dtype)
    return jnp.where(is_shared.reshape(-1, *[1] * (leaf.ndim - 1)), taken, leaf), is_shared
