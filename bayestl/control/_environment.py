"""An environment as two functions, and what it must give back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl._types import Key

_SIGNATURE = "step(key, state, action, params) -> (observation, state, reward, terminated, truncated)"


class Environment(NamedTuple):
    """A world that decisions are taken in: two functions of JAX, and the numbers that they depend on.

    Any pair of functions with these signatures will do. ``step`` does not start a new episode: whoever plays does that
    after ``terminated`` or ``truncated``, and so still sees where the last episode ended. Named functions rather than
    new lambdas let runs share compiled programs.

    Attributes:
        reset: ``(key, params) -> (observation, state)``: the start of an episode.
        step: ``(key, state, action, params) -> (observation, state, reward, terminated, truncated)``: the observation
            after the action, the reward for it, and two truth values: whether the episode is over because nothing more
            can be earned, and whether it was cut short, by a limit of time, although more could have been.
        params: any pytree of numbers, what :func:`vary` changes.

    Example:
        >>> env = btl.control.cartpole()
        >>> observation, state = env.reset(jax.random.key(0), env.params)
        >>> observation, state, reward, terminated, truncated = env.step(jax.random.key(1), state, 1, env.params)
        >>> print(observation.shape, reward, terminated)
        (4,) 1.0 False
    """

    reset: Callable[[Key, Any], tuple[Any, Any]]
    step: Callable[[Key, Any, Any, Any], tuple[Any, Any, Any, Any, Any]]
    params: Any = ()


def reset_all(key: Key, env: Environment, num: int) -> tuple[Any, Any]:
    """The starts of ``num`` episodes: observations and states, leaves (num, ...)."""
    return jax.vmap(env.reset, (0, None))(jax.random.split(key, num), env.params)


def step_all(key: Key, env: Environment, states: Any, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
    """A step of every episode; leaves (num, ...)."""
    keys = jax.random.split(key, len(jax.tree.leaves(actions)[0]))
    return jax.vmap(env.step, (0, 0, 0, None))(keys, states, actions, env.params)


def check_environment(env: Environment, action: Any) -> Any:
    """Raise where an environment does not have the signature; the shape of its observation otherwise.

    Args:
        env: to be checked, by tracing alone.
        action: one decision, or its shape.

    Returns:
        Shapes and dtypes of one observation.

    Raises:
        TypeError: a ``reset`` or ``step`` that gives back something else, or that JAX cannot trace.
        ValueError: an observation or a state that changes its shape or dtype from step to step; a reward that is no
            single number, ends that are no truth values.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    start = _traced("reset", env.reset, key, env.params)
    if not isinstance(start, tuple) or len(start) != 2:
        raise TypeError(f"env.reset gives {_described(start)}; it must be reset(key, params) -> (observation, state)")
    observation, state = start
    after = _traced("step", env.step, key, state, action, env.params)
    if not isinstance(after, tuple) or len(after) != 5:
        raise TypeError(
            f"env.step gives {_described(after)}; it must be {_SIGNATURE}. For an environment of gymnax, whose step "
            "gives six values, use control.from_gymnax"
        )
    for name, before, now in (("observation", observation, after[0]), ("state", state, after[1])):
        if _shapes(before) != _shapes(now):
            raise ValueError(
                f"the {name} of env.reset has {_shown(before)} and that of env.step {_shown(now)}; give both the same "
                "structure, shapes and dtypes"
            )
    for name, value in zip(("reward", "terminated", "truncated"), after[2:], strict=True):
        if getattr(value, "shape", None) != ():
            raise ValueError(f"the {name} of env.step has {_shown(value)}; it must be a single number")
        if name != "reward" and value.dtype != bool:
            raise ValueError(
                f"the {name} of env.step has {_shown(value)}; it must be a truth value, such as {name}.astype(bool)"
            )
    return observation


def _traced(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        signature = _SIGNATURE if name == "step" else "reset(key, params) -> (observation, state)"
        given = f" for the actions of the likelihood, {_shown(arguments[2])}" if name == "step" else ""
        raise TypeError(f"env.{name} cannot be traced as {signature}{given}: {error}") from error


def _shapes(tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [(x.shape, jnp.dtype(x.dtype)) for x in leaves]


def _shown(tree: Any) -> str:
    return ", ".join(f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(tree)) or "nothing in it"


def _described(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"
