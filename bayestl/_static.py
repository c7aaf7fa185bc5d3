"""A pytree taken apart into its arrays and all the rest, as the arguments of a compiled program."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


class Static:
    """The part of a pytree that is no array, as a hashable value: functions, and the structure itself.

    Two methods built from the same functions over arrays of the same shapes have equal static parts, so the program
    compiled for one serves the other.
    """

    def __init__(self, treedef: Any, leaves: tuple[Any, ...]):
        self._key = (treedef, leaves)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._key == other._key

    def combine(self, dynamic: list[Any]) -> Any:
        """The pytree again, with arrays (or tracers) in their places."""
        treedef, leaves = self._key
        arrays = iter(dynamic)
        return jax.tree.unflatten(treedef, [next(arrays) if leaf is None else leaf for leaf in leaves])


def partition(tree: Any) -> tuple[list[Any], Static]:
    """The arrays of a pytree, and all the rest as a hashable value."""
    leaves, treedef = jax.tree.flatten(tree)
    # Python's whole numbers and truth values shape the program (how many draws), its floats do not.
    is_array = [isinstance(x, jax.Array | np.ndarray | np.generic | float | jax.ShapeDtypeStruct) for x in leaves]
    dynamic = [x for x, is_arr in zip(leaves, is_array, strict=True) if is_arr]
    return dynamic, Static(treedef, tuple(None if a else x for x, a in zip(leaves, is_array, strict=True)))
