"""What a policy did, as data to clone it from."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import data as _data
from bayestl import likelihoods
from bayestl._arguments import check_arguments, check_at_least
from bayestl._static import Static, partition
from bayestl._types import Key, Likelihood, Net
from bayestl.control._environment import Environment, reset_all, step_all
from bayestl.control._policy import act, check_policy


def demonstrations(
    key: Key,
    policy: Net,
    env: Environment,
    num_episodes: int,
    *,
    likelihood: Likelihood | None = None,
    max_steps: int = 500,
) -> Any:
    """Decisions of a policy with what it saw, as data for cloning: a classification, or regression, of its own.

    All episodes run side by side in one compiled program.

    Args:
        key: of the episodes and of the decisions.
        policy: network with its parameters; ``likelihood(outputs)`` is the distribution of its actions.
        env: what it acts in.
        num_episodes: E.
        likelihood: None for :func:`bayestl.likelihoods.categorical`.
        max_steps: after which an episode is left, finished or not.

    Returns:
        Data of :func:`bayestl.data.arrays`: observations and actions of all episodes, one after another.

    Raises:
        TypeError: an environment without the signature of :class:`Environment`.
        ValueError: observations that do not fit the network; numbers below 1.

    Warns:
        UserWarning: episodes that had not ended after ``max_steps``.

    Example:
        >>> expert = btl.nets.mlp(jax.random.key(0), (4, 8, 2))
        >>> data = btl.control.demonstrations(jax.random.key(1), expert, btl.control.cartpole(), 2)
        >>> data.inputs.shape[1], data.targets.dtype
        (4, dtype('int32'))
    """
    check_arguments(demonstrations, locals())
    likelihood = likelihoods.categorical() if likelihood is None else likelihood
    check_at_least(1, num_episodes=num_episodes, max_steps=max_steps)
    check_policy(policy, policy.params, likelihood, env)
    arrays, static = partition((policy, likelihood, env))
    observations, actions, lengths, ended = _record(static, arrays, key, num_episodes, max_steps)
    if not np.all(ended):
        warnings.warn(
            f"{int(np.sum(~np.asarray(ended)))} of {num_episodes} episodes had not ended after max_steps={max_steps} "
            "steps and were left there",
            UserWarning,
            stacklevel=2,
        )
    played = np.arange(max_steps)[None] < np.asarray(lengths)[:, None]  # (E, max_steps)
    inputs, targets = jax.tree.map(lambda x: np.asarray(x)[played], (observations, actions))
    return _data.arrays(inputs, targets)


@partial(jax.jit, static_argnums=(0, 3, 4))
def _record(static: Static, arrays: list[Any], key: Key, num_episodes: int, max_steps: int) -> Any:
    """Observations and actions (E, max_steps, ...), lengths (E,), whether each episode ended (E,)."""
    policy, likelihood, env = static.combine(arrays)
    key_reset, key_steps = jax.random.split(key)
    observation, state = reset_all(key_reset, env, num_episodes)

    def step(carry: Any, key: Key) -> tuple[Any, Any]:
        observation, state, length, over = carry
        key_act, key_env = jax.random.split(key)
        actions = act(key_act, policy, likelihood, policy.params, observation)
        after, state, _, terminated, truncated = step_all(key_env, env, state, actions)
        return (after, state, length + ~over, over | terminated | truncated), (observation, actions)

    start = (observation, state, jnp.zeros(num_episodes, jnp.int32), jnp.zeros(num_episodes, bool))
    (_, _, length, over), played = jax.lax.scan(step, start, jax.random.split(key_steps, max_steps))
    return *jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), played), length, over
