"""A plain function of parameters and inputs as a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from bayestl._arguments import check_arguments
from bayestl._types import Inputs, Key, Net, Params
from bayestl.nets._static import ComparedByValue, checked_params


@dataclasses.dataclass(frozen=True)
class _FunctionApply:
    function: ComparedByValue

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        return self.function.value(params, inputs), state


def from_function(function: Callable[[Params, Any], Any], params: Params) -> Net:
    """A network without state or noise from ``function(params, inputs) -> outputs``.

    For libraries whose networks are functions of a pytree, and for models written by hand. Nets made from the same
    function share compiled programs, so pass a named function rather than a new ``lambda`` each time.

    Args:
        function: ``(params, inputs) -> outputs``, raw outputs, never probabilities; JAX can trace it.
        params: pytree of floating-point arrays; lifted to at least float32.

    Raises:
        TypeError: ``function`` cannot be called, or a parameter is not floating point.
        ValueError: no parameters, or values that are not finite.

    Example:
        >>> def line(params, inputs):
        ...     return inputs @ params["kernel"] + params["bias"]
        >>> net = btl.nets.from_function(line, {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)})
        >>> net(net.params, jnp.ones((5, 3))).shape
        (5, 2)
    """
    check_arguments(from_function, locals())
    if not callable(function):
        raise TypeError(f"function is {type(function).__name__}; give a callable (params, inputs) -> outputs")
    return Net(checked_params(params), (), _FunctionApply(ComparedByValue(function)))
