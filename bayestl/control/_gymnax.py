"""Environments of the gymnax library."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._types import Key
from bayestl.control._environment import Environment


@dataclasses.dataclass(frozen=True)
class _Reset:
    env: Any

    def __call__(self, key: Key, params: Any) -> tuple[Any, Any]:
        return _strong(self.env.reset_env(key, params))


@dataclasses.dataclass(frozen=True)
class _Step:
    env: Any

    def __call__(self, key: Key, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        observation, state, reward, terminated, _ = self.env.step_env(key, state, action, params)
        return *_strong((observation, state)), reward, terminated, self.env.is_truncated(state, params)


def from_gymnax(env: Any, params: Any = None) -> Environment:
    """An environment of gymnax (1.0 or newer) as an :class:`Environment`.

    Its ``step_env`` and ``reset_env`` are used, without its automatic reset; whether an episode was cut short is its
    ``is_truncated``.

    Args:
        env: as ``gymnax.make`` gives it first.
        params: as ``gymnax.make`` gives it second; None for the environment's defaults.

    Raises:
        TypeError: something else, such as an environment of Gymnasium, which JAX cannot trace, or of a gymnax before
            1.0, whose ``step_env`` does not tell a limit of time from an end.
    """
    names = ("reset_env", "step_env", "is_truncated", "default_params")
    missing = [name for name in names if not hasattr(env, name)]
    if missing:
        raise TypeError(
            f"env is a {type(env).__name__} without {', '.join(missing)}; give an environment of gymnax 1.0 or newer, "
            "env, params = gymnax.make('CartPole-v1')"
        )
    params = env.default_params if params is None else params
    return Environment(_Reset(env), _Step(env), jax.tree.map(jnp.asarray, params))


def _strong(tree: Any) -> Any:
    """Python's numbers as arrays, so that states keep their dtype from step to step."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)
