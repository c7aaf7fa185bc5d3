"""What a network's ``apply`` is made of: values that JAX compares when it looks for a compiled program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayestl import _tree
from bayestl._types import Params


class ComparedByValue:
    """A value that equals another one when their contents do, and is equal only to itself when it cannot be hashed.

    Two nets made from equal modules then share one compiled program, and a module with unhashable attributes (a list,
    an array) still works, at the price of a compilation for each module object.
    """

    def __init__(self, value: Any):
        self.value = value
        try:
            self._hash: int | None = hash(value)
        except TypeError:
            self._hash = None

    def __hash__(self) -> int:
        return id(self.value) if self._hash is None else self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ComparedByValue):
            return NotImplemented
        if self.value is other.value:
            return True
        return self._hash is not None and self._hash == other._hash and bool(self.value == other.value)

    def __repr__(self) -> str:
        return f"ComparedByValue({self.value!r})"


def checked_params(params: Params) -> Params:
    """``params`` as arrays of at least float32.

    Raises:
        TypeError: a leaf is not floating point.
        ValueError: there are no leaves, or one is not finite.
    """
    _tree.check_floating("params", params)
    params = _tree.at_least_float32(params)
    _tree.check_finite("params", params, "load the weights again, or stop training before it diverges")
    return params


def call_arguments(name: str, arguments: Mapping[str, Any] | None) -> ComparedByValue:
    """Keyword arguments of a module's call, as a hashable value."""
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise TypeError(
            f"{name} is {arguments!r}; give the keyword arguments of the module's call as a mapping, "
            f'such as {name}={{"train": {name == "train"}}}'
        )
    return ComparedByValue(tuple(sorted(arguments.items())))
