"""Parameters of a layer as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._rearrangement import Rearrangement
from bayestl._types import Params


class MatrixLayout(NamedTuple):
    """Which parameters belong to a layer, and how they form a matrix (g, I, O): g groups, I inputs, O outputs.

    A bias, the weight of an input that is always 1, is the last row of every group.

    Attributes:
        weights: path of the leaf with the weights.
        rearrangement: from that leaf to (g, I, O), without the bias.
        bias: path of the leaf that is the last row; None if there is none.
    """

    weights: str
    rearrangement: Rearrangement
    bias: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the leaves."""
        return (self.weights,) if self.bias is None else (self.weights, self.bias)

    def matrix(self, tree: Params) -> jax.Array:
        """The matrix from a tree with these leaves."""
        leaves = _tree.by_paths(tree)
        rows = self.rearrangement(leaves[self.weights])
        if self.bias is None:
            return rows
        return jnp.concatenate([rows, leaves[self.bias].reshape(rows.shape[0], 1, rows.shape[2])], axis=1)

    def tree(self, matrix: jax.Array, like: Params) -> Params:
        """The tree of ``like`` from a matrix, None at leaves that are not in it."""
        shapes = {path: leaf.shape for path, leaf in _tree.by_paths(like).items()}
        if self.bias is None:
            return _tree.restructure({self.weights: self.rearrangement.back(matrix)}, like)
        leaves = {
            self.weights: self.rearrangement.back(matrix[:, :-1]),
            self.bias: matrix[:, -1].reshape(shapes[self.bias]),
        }
        return _tree.restructure(leaves, like)

    def bias_alone(self, shape: Sequence[int]) -> MatrixLayout:
        """The layout of the bias alone, which has this shape: one input in each group."""
        groups, _, outputs = self.rearrangement.result
        return MatrixLayout(str(self.bias), Rearrangement(tuple(shape), (("reshape", (groups, 1, outputs)),)))


def steps_from_json(steps: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The steps of a rearrangement from lists, as they are in a file.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(steps, list) or not all(map(_is_step, steps)):
        raise ValueError(f"{steps!r} are not the steps to a matrix")
    return tuple((name, tuple(argument)) for name, argument in steps)


def _is_step(step: Any) -> bool:
    return (
        isinstance(step, list)
        and len(step) == 2
        and step[0] in ("transpose", "reshape", "reverse")
        and isinstance(step[1], list)
        and all(type(n) is int and n >= 0 for n in step[1])
    )
