"""Convolutions written so that XLA on a CPU computes them as fast inside a compiled loop as outside.

XLA's CPU compiler brings convolutions to the one order of axes that its fast code takes (examples, space, channels;
kernels: space, inputs, outputs), but only those that stand outside of loops. Those in a loop whose axes are in another
order, as in the gradient of every kernel, run on a naive path, some 20 times slower (jax issue 12868). So they are
written in that order from the start, between transpositions: the numbers are the same, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from bayestl._dispatch import equations


class Traced(NamedTuple):
    """A function as it was traced.

    Attributes:
        function: what computes the same, from arguments of the same structure and shapes.
        shapes: of its results.
    """

    function: Callable[..., Any]
    shapes: Any


def for_loop(function: Callable[..., Any], *args: Any) -> Traced:
    """A function as it belongs into a compiled loop on this backend: on a CPU with its convolutions rewritten.

    Args:
        function: of trees of arrays; it may have closed over traced values.
        args: arguments, or their shapes.

    Example:
        >>> from bayestl._convolutions import for_loop
        >>> kernel, picture = jnp.ones((1, 1, 3)), jnp.arange(4.0).reshape(1, 1, 4)
        >>> smooth = for_loop(lambda x: jax.lax.conv(x, kernel, (1,), "SAME"), picture)
        >>> smooth.function(picture).ravel().tolist(), smooth.shapes.shape
        ([1.0, 3.0, 6.0, 5.0], (1, 1, 4))
    """
    if jax.default_backend() != "cpu":
        return Traced(function, jax.eval_shape(function, *args))
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    if not _to_rewrite(closed):
        return Traced(function, shapes)
    flat, treedef = jaxpr_as_fun(_rewritten_closed(closed)), jax.tree.structure(shapes)
    return Traced(lambda *args: jax.tree.unflatten(treedef, flat(*jax.tree.leaves(args))), shapes)


def loop_map(function: Callable[[Any], Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """``jax.lax.map``, its function written for a loop.

    Args:
        function: of one entry along the leading axis of ``xs``.
        xs: tree of arrays with a leading axis.
        batch_size: entries at once, side by side; None for one.

    Example:
        >>> from bayestl._convolutions import loop_map
        >>> loop_map(lambda x: 2 * x, jnp.arange(3)).tolist()
        [0, 2, 4]
    """
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    return jax.lax.map(for_loop(function, one).function, xs, batch_size=batch_size)


def _to_rewrite(jaxpr: Any) -> bool:
    """Whether a program, or one inside it, holds a convolution with its axes in another order."""
    return any(
        equation.primitive.name == "conv_general_dilated"
        and equation.params["dimension_numbers"] != _fast_order(len(equation.outvars[0].aval.shape))
        for equation in equations(jaxpr)
    )


def _fast_order(ndim: int) -> jax.lax.ConvDimensionNumbers:
    space = range(1, ndim - 1)
    pictures = (0, ndim - 1, *space)
    return jax.lax.ConvDimensionNumbers(pictures, (ndim - 1, ndim - 2, *range(ndim - 2)), pictures)


def _rewritten_closed(closed: ClosedJaxpr) -> ClosedJaxpr:
    return closed.replace(jaxpr=_rewritten(closed.jaxpr))


def _rewritten(jaxpr: Jaxpr) -> Jaxpr:
    return jaxpr.replace(eqns=[_rewritten_equation(equation) for equation in jaxpr.eqns])


def _rewritten_equation(equation: Any) -> Any:
    if equation.primitive.name == "conv_general_dilated":
        primitive, params = _call(
            tuple((var.aval.shape, var.aval.dtype) for var in equation.invars), _Frozen(equation.params)
        )
        return equation.replace(primitive=primitive, params=params)
    params = {name: _rewritten_param(value) for name, value in equation.params.items()}
    return equation.replace(params=params)


def _rewritten_param(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_rewritten_param, value)) if any(map(_is_program, value)) else value
    if not _is_program(value) or not _to_rewrite(value):
        return value
    return _rewritten_closed(value) if isinstance(value, ClosedJaxpr) else _rewritten(value)


def _is_program(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


class _Frozen:
    """The parameters of an operation, hashable by what they print."""

    def __init__(self, params: dict[str, Any]):
        self.params, self._key = params, repr(sorted(params.items()))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self._key == other._key


@lru_cache(maxsize=256)
def _call(operands: tuple[tuple[tuple[int, ...], Any], ...], frozen: _Frozen) -> tuple[Any, dict[str, Any]]:
    """The primitive and the parameters of one call that computes a convolution in the fast order."""

    def convolution(pictures: jax.Array, kernel: jax.Array) -> jax.Array:
        params: dict[str, Any] = frozen.params
        (batch, channel, *space), (out, into, *kernel_space), result = params["dimension_numbers"]
        fast = jax.lax.conv_general_dilated(
            jnp.transpose(pictures, (batch, *space, channel)),
            jnp.transpose(kernel, (*kernel_space, into, out)),
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            _fast_order(pictures.ndim),
            params["feature_group_count"],
            params["batch_group_count"],
            params["precision"],
            params["preferred_element_type"],
        )
        places = (result[0], *result[2:], result[1])
        return jnp.transpose(fast, [places.index(axis) for axis in range(len(places))])

    call = jax.make_jaxpr(jax.jit(convolution))(*(jax.ShapeDtypeStruct(*operand) for operand in operands)).eqns[0]
    return call.primitive, call.params
