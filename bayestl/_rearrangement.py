"""The numbers of an array in another order and shape, written down so that it can be undone."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Rearrangement(NamedTuple):
    """The entries of an array in another order and shape.

    Attributes:
        shape: of the array.
        steps: one after another, ``("transpose", axes)``, ``("reshape", shape)`` or ``("reverse", axes)``, which puts
            the entries along some axes in the opposite order.

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
            if name == "reverse":
                x = x[tuple(slice(None, None, -1 if axis in argument else 1) for axis in range(x.ndim))]
            else:
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
            elif name != "reverse" or sorted(set(argument) & set(range(len(shape)))) != sorted(argument):
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
            elif name == "reverse":
                undone.append((name, argument))
            else:
                undone.append((name, shape))
                shape = argument
        return tuple(reversed(undone))
