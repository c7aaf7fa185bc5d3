"""Compiled programs: looked up by what they compute; only the latest ones are kept.

Large arrays that a program has closed over, such as the frozen weights in a method of ``fit_many``, are made arguments:
XLA would copy them into the program, and take them for a part of what it computes.

A new method, with a fresh ``optax.adam(...)``, contains new functions, so JAX takes it for a different one and traces
it again. But if the traced program is the same, letter for letter, the compiled program is reused.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.stages import Compiled, Traced

from bayestl._dispatch import equations

MAX_PROGRAMS = 16
"""How many programs are kept. A run uses one to three."""

_MAX_CONSTANTS = 2**24
_compiled: OrderedDict[Any, Compiled] = OrderedDict()


@lru_cache(maxsize=MAX_PROGRAMS)
def _jitted(function: Callable, static: Any, donate: tuple[int, ...]) -> Any:
    # One object for each static part, so that what JAX remembers of it goes when it goes. Unused arguments are kept:
    # two programs that drop different ones could otherwise read the same.
    return jax.jit(partial(function, static), donate_argnums=donate, keep_unused=True)


def trace(function: Callable, static: Any, *args: Any, donate: tuple[int, ...] = ()) -> Traced:
    """``function(static, *args)`` as a traced program.

    Args:
        function: a function of the module level.
        static: everything that is not an array; hashable.
        args: arrays, or their shapes.
        donate: numbers of arguments, ``static`` not counted, whose memory the program may use for what it returns.
    """
    return _jitted(function, static, donate).trace(*args)


class WithConstants(NamedTuple):
    """A program together with large arrays that it takes in front of its arguments."""

    compiled: Compiled
    constants: tuple[jax.Array, ...]

    def __call__(self, *args: Any) -> Any:
        return self.compiled(self.constants, *args)

    def memory_analysis(self) -> Any:
        """What the compiler plans; see :class:`jax.stages.Compiled`."""
        return self.compiled.memory_analysis()


def compiled(traced: Traced, *args: Any, donate: tuple[int, ...] = ()) -> Compiled | WithConstants:
    """The program, compiled for these arguments, or an earlier one that computes the same on the same devices.

    Args:
        traced: from :func:`trace`.
        args: the arguments that it was traced for.
        donate: as for :func:`trace`.
    """
    constants = tuple(getattr(traced.jaxpr, "consts", ()))
    if sum(x.nbytes for x in constants) <= _MAX_CONSTANTS or not _on_one_device((constants, args)):
        return _compiled_once(traced, *args)
    function = _taking_constants(traced)
    own = jax.jit(function, donate_argnums=tuple(number + 1 for number in donate), keep_unused=True)
    return WithConstants(_compiled_once(own.trace(constants, *args), constants, *args), constants)


def _taking_constants(traced: Traced) -> Callable:
    """The function of a traced program, with its constants as a first argument."""
    jaxpr: Any = traced.jaxpr
    structure = jax.tree.structure(traced.out_info)

    def function(constants: tuple[jax.Array, ...], *args: Any) -> Any:
        results = jaxpr_as_fun(jaxpr.replace(consts=list(constants)))(*jax.tree.leaves(args))
        return jax.tree.unflatten(structure, results)

    return function


def _on_one_device(tree: Any) -> bool:
    places = [getattr(x, "sharding", None) for x in jax.tree.leaves(tree)]
    return len(set().union(*(place.device_set for place in places if place is not None))) <= 1


def _compiled_once(traced: Traced, *args: Any) -> Compiled:
    lowered = traced.lower()
    jaxpr: Any = traced.jaxpr
    constants = _constants(jaxpr)
    # The text of a program does not distinguish between functions on the host.
    calls_host = any("callback" in equation.primitive.name for equation in equations(jaxpr))
    if calls_host or sum(x.nbytes for x in constants) > _MAX_CONSTANTS:
        return lowered.compile()
    digest = hashlib.sha256(lowered.as_text().encode())
    for constant in constants:
        digest.update(str(constant.dtype).encode() + constant.tobytes())
    # What the text does not show: types known only to JAX (kinds of keys, weak types), containers, devices.
    types = tuple(map(repr, (*jaxpr.in_avals, *jaxpr.out_avals)))
    places = tuple(str(getattr(x, "sharding", None)) for x in jax.tree.leaves(args))
    default = str(jax.config.jax_default_device)  # pyright: ignore[reportAttributeAccessIssue]
    key = (digest.hexdigest(), types, lowered.in_tree, lowered.out_tree, places, default)
    if key in _compiled:
        _compiled.move_to_end(key)
    else:
        _compiled[key] = lowered.compile()
        while len(_compiled) > MAX_PROGRAMS:
            _compiled.popitem(last=False)
    return _compiled[key]


def program(function: Callable, static: Any, *args: Any, donate: tuple[int, ...] = ()) -> Compiled | WithConstants:
    """``function(static, *args)`` compiled for these arguments."""
    return compiled(trace(function, static, *args, donate=donate), *args, donate=donate)


def _constants(jaxpr: Any) -> list[np.ndarray]:
    """The arrays that a traced program contains besides its arguments, on the host."""
    arrays = list(jaxpr.consts)
    for equation in equations(jaxpr):
        arrays += [x.val for x in equation.invars if getattr(x, "val", None) is not None and np.ndim(x.val)]
        arrays += [x for value in equation.params.values() for x in getattr(value, "consts", ())]
    return [np.asarray(_numbers(x)) for x in arrays]


def _numbers(x: Any) -> Any:
    is_key = isinstance(x, jax.Array) and jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x
