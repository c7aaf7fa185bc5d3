"""The same world with other numbers, other actions, or other eyes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._types import Key
from bayestl.control._environment import Environment

# CartPole stores these beside what they are made of, here and in gymnax.
_DERIVED = {
    "total_mass": (("masscart", "masspole"), lambda cart, pole: cart + pole),
    "polemass_length": (("masspole", "length"), lambda pole, length: pole * length),
}


def vary(env: Environment, **changes: Any) -> Environment:
    """The same environment with other dynamics.

    ``total_mass`` and ``polemass_length``, which CartPole stores beside the masses and the length, follow from these
    unless they are given themselves.

    Args:
        env: whose ``params`` have named fields: a NamedTuple, a dataclass or a dict.
        **changes: field to number. Arrays with a leading axis give many environments, for ``jax.vmap``.

    Raises:
        TypeError: params without named fields.
        ValueError: a field that they do not have.

    Example:
        >>> env = btl.control.vary(btl.control.cartpole(), gravity=30.0, force=3.0)
        >>> print(env.params.gravity, env.params.force, env.params.length)
        30.0 3.0 0.5
    """
    check_arguments(vary, locals())
    fields = _fields(env.params)
    unknown = sorted(set(changes) - set(fields))
    if unknown:
        raise ValueError(f"the environment has no {', '.join(unknown)}; its params are {', '.join(fields)}")
    both = {**fields, **changes}
    for name, (parts, made) in _DERIVED.items():
        if name in fields and name not in changes and set(parts) <= set(fields) and set(parts) & set(changes):
            changes[name] = made(*(both[part] for part in parts))
    for name, value in changes.items():
        try:
            changes[name] = jnp.asarray(value, jnp.asarray(fields[name]).dtype)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} is a {type(value).__name__}; give a number, or an array of them") from error
    return env._replace(params=_replaced(env.params, changes))


def swap_actions(env: Environment, order: Sequence[int] = (1, 0)) -> Environment:
    """The same environment whose levers are mixed up: action a does what ``order[a]`` did.

    A policy that was good before is wrong by design then: a test of whether a source that misleads is noticed.

    Args:
        env: with actions 0 .. A - 1.
        order: (A,), each action once.

    Raises:
        ValueError: an ``order`` that is no permutation.
    """
    check_arguments(swap_actions, locals())
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"order is {tuple(order)}; give each of 0, ..., {len(order) - 1} once")
    return env._replace(step=_Swapped(env.step, tuple(int(a) for a in order)))


def map_observations(env: Environment, function: Callable[[Any], Any]) -> Environment:
    """The same environment, seen through ``function(observation)``: scaled, cut, or with other units.

    Args:
        env: any environment.
        function: of one observation; JAX can trace it.

    Example:
        >>> env = btl.control.map_observations(btl.control.cartpole(), lambda x: x * jnp.array([1.0, 1.0, 10.0, 1.0]))
    """
    check_arguments(map_observations, locals())
    return env._replace(reset=_Seen(env.reset, function), step=_Seen(env.step, function))


@dataclasses.dataclass(frozen=True)
class _Swapped:
    step: Callable[..., Any]
    order: tuple[int, ...]

    def __call__(self, key: Key, state: Any, action: Any, params: Any) -> Any:
        return self.step(key, state, jnp.asarray(self.order)[action], params)


@dataclasses.dataclass(frozen=True)
class _Seen:
    function: Callable[..., Any]
    view: Callable[[Any], Any]

    def __call__(self, *arguments: Any) -> Any:
        observation, *others = self.function(*arguments)
        return (self.view(observation), *others)


def _fields(params: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        return {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    if isinstance(params, tuple) and hasattr(params, "_fields"):
        return {name: getattr(params, name) for name in getattr(params, "_fields", ())}
    if isinstance(params, dict):
        return dict(params)
    raise TypeError(
        f"env.params is a {type(params).__name__} without named fields; make it a NamedTuple, a dataclass or a dict, "
        "or replace it whole, env._replace(params=...)"
    )


def _replaced(params: Any, changes: dict[str, Any]) -> Any:
    if isinstance(params, dict):
        return {**params, **changes}
    if hasattr(params, "_replace"):
        return params._replace(**changes)
    return dataclasses.replace(params, **changes)
