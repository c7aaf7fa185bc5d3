"""Checks of arguments that many public functions share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np

from bayestl._argument_kinds import (
    alternatives,
    can_be_taken_apart,
    fits,
    in_words,
    is_known,
    is_tree,
    is_whole,
    key_ndim,
    misfit,
)
from bayestl._types import Key


def check_key(function: str, key: Key, batched: bool = False) -> None:
    """Refuse anything but a random key where one is the first argument.

    Args:
        function: the name of the public function, for the message.
        key: what was given: a key of ``jax.random.key``, or an old-style one, uint32 (2,).
        batched: one key per member instead, with a leading axis.

    Raises:
        TypeError: anything else; most often the arguments are in another order.
    """
    if key_ndim(key) == int(batched):
        return
    expected = "an array of random keys, one per member" if batched else "a random key"
    example = "jax.random.split(jax.random.key(0), num)" if batched else "jax.random.key(0)"
    raise TypeError(f"{function}'s first argument is {expected}; got {_name(key)}. Give {example}")


def _name(value: Any) -> str:
    """What a value is, in a few words that fit after "got"."""
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], skip: Sequence[str] = ()) -> None:
    """Check the arguments of a public function against its annotations, before anything is done with them.

    Called first thing in the function: ``check_arguments(fit, locals())``. The annotations are the table of what is
    allowed. Only kinds are checked, not values, so it may be called while tracing. An annotation that is not known here
    (``Any`` first of all) allows everything.

    Args:
        function: the function itself, or the ``__init__`` of a class.
        arguments: name to value; further names are ignored.
        skip: arguments with checks of their own, whose sentences say more.

    Raises:
        TypeError: an argument of another kind, in one sentence with its name, what came and what to give.

    Example:
        >>> def mean(values: jax.Array, axis: int | None = None):
        ...     check_arguments(mean, locals())
        >>> mean(jnp.ones(3), axis=1.5)
        Traceback (most recent call last):
        TypeError: mean: axis is 1.5; give a whole number or None
    """
    name = function.__qualname__.removesuffix(".__init__")
    for position, (argument, kinds) in enumerate(_kinds_of(function)):
        value = arguments[argument]
        if argument in skip:
            continue
        if kinds == ("Key",):
            if position == 0:
                check_key(name, value, batched=argument == "keys")
            elif key_ndim(value) != 0:
                raise TypeError(f"{name}: {argument} is {_shown(value)}; give a random key, jax.random.key(0)")
        elif not any(fits(kind, value) for kind in kinds):
            inner = next((wrong for kind in kinds if is_known(kind) and (wrong := misfit(kind, value))), None)
            where, wrong, expected = inner or ("", value, kinds)
            raise TypeError(f"{name}: {argument}{where} is {_shown(wrong)}; give {_expected(expected, wrong)}")
        elif (argument.startswith("num_") or argument == "seed") and is_whole(value) and value < 0:
            raise ValueError(f"{name}: {argument} is {value}; it must be at least 0")


def check_at_least(least: int, **numbers: int | None) -> None:
    """Raise a ``ValueError`` on a number below ``least``; None stands for a default, and may stay.

    Example:
        >>> check_at_least(1, num_samples=0)
        Traceback (most recent call last):
        ValueError: num_samples is 0; give a whole number, at least 1
    """
    for name, value in numbers.items():
        if value is not None and not value >= least:
            raise ValueError(f"{name} is {value}; give a whole number, at least {least}")


def check_tree(name: str, value: Any) -> None:
    """Raise a ``TypeError`` unless a value is an array, or a pytree of arrays, of which it may hold none."""
    if value is None or not is_tree(value):
        raise TypeError(f"{name} is {_shown(value)}; give an array, or a pytree of arrays")


def check_keys(name: str, value: Any) -> None:
    """Raise a ``TypeError`` on a pytree whose dicts have keys that cannot be sorted, of which JAX makes nothing."""
    if not can_be_taken_apart(value):
        raise TypeError(f"{name} is {_shown(value)} whose keys cannot be sorted; give keys of one kind, such as texts")


@cache
def _kinds_of(function: Callable[..., Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The arguments of a function whose kinds are known here, each with its alternatives."""
    known = []
    for position, (argument, annotation) in enumerate(function.__annotations__.items()):
        kinds = alternatives(str(annotation))
        variadic = inspect.signature(function).parameters
        is_plain = argument in variadic and variadic[argument].kind is not inspect.Parameter.VAR_POSITIONAL
        if "Data" in kinds and "Batch" in kinds:
            kinds = (*kinds, "Batches")
        if is_plain and all(is_known(kind) for kind in kinds):
            known.append((argument, kinds))
        elif position == 0:
            known.append((argument, ("object",)))  # a key counts as the first argument only where it is
    return tuple(known)


def _expected(kinds: Sequence[str], value: Any) -> str:
    """What to give instead, with the shortest way there from what came."""
    bases = {base.__name__ for base in type(value).__mro__}
    modules = {base.__module__.split(".")[0] for base in type(value).__mro__}
    if "Data" in kinds and isinstance(value, tuple | list) and len(value) == 2:
        return "bayestl.data.arrays(inputs, targets)"
    if "Checkpoint" in kinds and isinstance(value, str | os.PathLike):
        return f"bayestl.Checkpoint({str(value)!r})"
    if "Net" in kinds and modules & _LIBRARIES.keys():
        library = next(name for name in _LIBRARIES if name in modules)
        return f"a Net, {_LIBRARIES[library]}"
    if {"Posterior", "Params", "Gaussian"} & set(kinds) and bases & {"FitResult", "ManyResult", "Loaded"}:
        return f"its .{'params' if 'Params' in kinds else 'posterior'}"
    return " or ".join(dict.fromkeys(in_words(kind) for kind in kinds))


def _shown(value: Any) -> str:
    """A value in a few words: itself where it is short, else what it is."""
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 60):
        return repr(value)
    return _name(value)


_LIBRARIES = {
    "keras": "bayestl.nets.from_keras(model)",
    "flax": "bayestl.nets.from_linen(module, variables), or from_nnx(module)",
    "equinox": "bayestl.nets.from_equinox(module)",
}
"""Libraries of networks to the function that takes their modules."""
