"""Parameters of a layer as a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Params


class Rearrangement(NamedTuple):
    """The entries of an array in another order and shape.

    Attributes:
        shape: of the array.
        steps: one after another, ``("transpose", axes)`` or ``("reshape", shape)``.

    Example:
        >>> columns = btl.gaussians.Rearrangement((2, 3), (("transpose", (1, 0)),))
        >>> print(columns(np.arange(6).reshape(2, 3)).ravel())
        [0 3 1 4 2 5]
    """

    shape: tuple[int, ...]
    steps: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __call__(self, x: Any) -> Any:
        """An array of ``shape``, of JAX or numpy, rearranged."""
        for name, argument in self.steps:
            x = x.transpose(argument) if name == "transpose" else x.reshape(argument)
        return x

    @property
    def result(self) -> tuple[int, ...]:
        """The shape of what comes out.

        Raises:
            ValueError: steps that do not fit the shape.
        """
        shape = self.shape
        for name, argument in self.steps:
            if name == "transpose" and sorted(argument) == list(range(len(shape))):
                shape = tuple(shape[axis] for axis in argument)
            elif name == "reshape" and math.prod(argument) == math.prod(shape) and min(argument, default=0) >= 0:
                shape = tuple(argument)
            else:
                raise ValueError(f"an array of shape {shape} has no {name} to {argument}")
        return shape

    def back(self, x: Any) -> Any:
        """The array of ``shape`` from its rearrangement."""
        return Rearrangement((), self._undone())(x)

    def _undone(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        undone, shape = [], self.shape
        for name, argument in self.steps:
            if name == "transpose":
                undone.append((name, tuple(sorted(range(len(argument)), key=lambda axis, a=argument: a[axis]))))
                shape = tuple(shape[axis] for axis in argument)
            else:
                undone.append((name, shape))
                shape = argument
        return tuple(reversed(undone))


class MatrixLayout(NamedTuple):
    """Which parameters are a layer, and how they make a matrix (g, I, O): g groups, I inputs, O outputs.

    A bias, the weight of an input that is always 1, is the last row of every group.

    Attributes:
        weights: path of the leaf that holds the weights.
        rearrangement: from it to (g, I, O), without the bias.
        bias: path of the leaf that is the last row, None for none.
    """

    weights: str
    rearrangement: Rearrangement
    bias: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the leaves."""
        return (self.weights,) if self.bias is None else (self.weights, self.bias)

    def matrix(self, tree: Params) -> jax.Array:
        """The matrix of a tree that holds these leaves."""
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
        """The layout of the bias, of this shape, without the weights: one input in each group."""
        groups, _, outputs = self.rearrangement.result
        return MatrixLayout(str(self.bias), Rearrangement(tuple(shape), (("reshape", (groups, 1, outputs)),)))
