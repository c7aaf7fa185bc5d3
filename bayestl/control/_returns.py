"""What a policy earns."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, likelihoods
from bayestl._arguments import check_arguments, check_at_least
from bayestl._static import Static, partition
from bayestl._types import Key, Likelihood, Net, Params, Posterior
from bayestl.control._environment import Environment, reset_all, step_all
from bayestl.control._policy import act, check_policy


class Returns(NamedTuple):
    """Sums of rewards over whole episodes. Made by :func:`returns`.

    Attributes:
        mean: over all draws and episodes.
        standard_error: of the mean: over draws where there are several, over episodes where there is one.
        per_draw: (S,), the mean of each draw from the posterior.
        episodes: (S, E), each episode's.
    """

    mean: float
    standard_error: float
    per_draw: np.ndarray
    episodes: np.ndarray


def returns(
    key: Key,
    posterior: Posterior,
    net: Net,
    env: Environment,
    num_episodes: int,
    *,
    num_draws: int = 1,
    likelihood: Likelihood | None = None,
    max_steps: int = 500,
) -> Returns:
    """What policies drawn from a posterior earn in whole episodes, actions drawn as well.

    One compiled program over all draws and episodes, which ends with the last episode.

    Args:
        key: of draws, episodes and actions.
        posterior: over the parameters of the network; ``btl.Point(params)`` for one policy.
        net: observations (B, ...) to outputs.
        env: what is acted in.
        num_episodes: E, of each draw.
        num_draws: S.
        likelihood: of the actions; None for :func:`bayestl.likelihoods.categorical`.
        max_steps: after which an episode is left, finished or not.

    Raises:
        TypeError: an environment without the signature of :class:`Environment`.
        ValueError: observations, or draws of the posterior, that do not fit the network; rewards that are not finite;
            numbers below 1.

    Warns:
        UserWarning: episodes that had not ended after ``max_steps``.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 2))
        >>> earned = btl.control.returns(jax.random.key(1), btl.Point(net.params), net, btl.control.cartpole(), 4)
        >>> earned.episodes.shape, bool(earned.mean >= 1)
        ((1, 4), True)
    """
    check_arguments(returns, locals())
    likelihood = likelihoods.categorical() if likelihood is None else likelihood
    check_at_least(1, num_episodes=num_episodes, num_draws=num_draws, max_steps=max_steps)
    check_policy(net, net.params, likelihood, env)
    key_draws, key_play = jax.random.split(key)
    draws = posterior.sample(key_draws, num_draws)
    one = jax.tree.map(lambda x: x[0], draws)
    fix = "give a posterior over its parameters"
    _tree.check_same_structure("a draw of posterior", one, "net.params", net.params, fix)
    arrays, static = partition((net, likelihood, env))
    totals, over = _play(static, arrays, draws, jax.random.split(key_play, num_draws), num_episodes, max_steps)
    totals, over = np.asarray(totals, np.float64), np.asarray(over)
    if not np.all(np.isfinite(totals)):
        raise ValueError("the environment gave rewards that are not finite; look at env.step")
    if not over.all():
        warnings.warn(
            f"{int((~over).sum())} of {over.size} episodes had not ended after max_steps={max_steps} steps; their "
            "returns are those of what was played",
            UserWarning,
            stacklevel=2,
        )
    per_draw = totals.mean(1)
    spread = per_draw if num_draws > 1 else totals[0]
    error = float(spread.std(ddof=1) / np.sqrt(len(spread))) if len(spread) > 1 else float("nan")
    return Returns(float(totals.mean()), error, per_draw, totals)


@partial(jax.jit, static_argnums=(0, 4, 5))
def _play(static: Static, arrays: list[Any], draws: Params, keys: Key, num_episodes: int, max_steps: int) -> Any:
    """Returns (S, E), and which episodes ended (S, E)."""
    net, likelihood, env = static.combine(arrays)

    def one(params: Params, key: Key) -> tuple[jax.Array, jax.Array]:
        key_reset, key_steps = jax.random.split(key)
        observation, state = reset_all(key_reset, env, num_episodes)

        def step(carry: Any) -> Any:
            number, observation, state, total, over = carry
            key_act, key_env = jax.random.split(jax.random.fold_in(key_steps, number))
            actions = act(key_act, net, likelihood, params, observation)
            observation, state, reward, terminated, truncated = step_all(key_env, env, state, actions)
            total = total + jnp.where(over, 0.0, reward)
            return number + 1, observation, state, total, over | terminated | truncated

        start = (0, observation, state, jnp.zeros(num_episodes), jnp.zeros(num_episodes, bool))
        end = jax.lax.while_loop(lambda carry: (carry[0] < max_steps) & ~jnp.all(carry[-1]), step, start)
        return end[3], end[4]

    return jax.vmap(one)(draws, keys)
