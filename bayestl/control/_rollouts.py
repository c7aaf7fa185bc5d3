"""What a policy lives through, as weighted examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree, likelihoods
from bayestl import data as _data
from bayestl._arguments import check_arguments, check_at_least
from bayestl._types import Batch, Key, Likelihood, Net, Params, Scalar
from bayestl.control._advantages import advantage_weights, advantages_of
from bayestl.control._critic import Critic, as_targets, check_critic, values
from bayestl.control._environment import Environment, reset_all, step_all
from bayestl.control._policy import act, check_policy


class World(NamedTuple):
    """Where the environments stand between two rollouts; leaves (E, ...).

    Attributes:
        observation: what is seen.
        state: of the environments.
        total: rewards of the episodes so far.
        episode_return: the mean return of the episodes that ended last, a scalar; 0 before any has.
    """

    observation: Any
    state: Any
    total: jax.Array
    episode_return: jax.Array


class Played(NamedTuple):
    """What happened in one rollout; leaves (T, E, ...).

    Attributes:
        observations: before each decision.
        actions: decisions.
        later: observations after them, before any reset.
        rewards: for them.
        terminated: whether the episode was over then.
        truncated: whether it was cut short then.
    """

    observations: Any
    actions: Any
    later: Any
    rewards: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class Collected(NamedTuple):
    """One rollout, judged.

    Attributes:
        decisions: N = T E examples: observations, actions, and weights of mean 1.
        goals: examples for the critic, observations and discounted returns; None without one.
        reward: the mean reward of a step.
        episodes: how many episodes ended.
        effective: the share of the decisions that count, ``(sum w)^2 / (N sum w^2)``.
    """

    decisions: Batch
    goals: Batch | None
    reward: jax.Array
    episodes: jax.Array
    effective: jax.Array


class Rollouts(NamedTuple):
    """How experience is made. Made by :func:`rollouts`."""

    net: Net
    env: Environment
    likelihood: Likelihood
    num_envs: int
    num_steps: int
    discount: Any
    trace: Any
    weigh: Callable[[jax.Array], jax.Array]
    critic: Critic | None

    @property
    def num_decisions(self) -> int:
        """N of one rollout."""
        return self.num_envs * self.num_steps

    @property
    def data(self) -> Any:
        """Examples of the right number and shapes for ``fit``, all 0: the real ones are made as it goes."""
        observation, action = check_policy(self.net, self.net.params, self.likelihood, self.env)
        empty = jax.tree.map(lambda x: jnp.zeros((self.num_decisions, *x.shape), x.dtype), (observation, action))
        return _data.arrays(*empty)

    def start(self, key: Key) -> World:
        """All environments at the start of an episode."""
        observation, state = reset_all(key, self.env, self.num_envs)
        return World(observation, state, jnp.zeros(self.num_envs), jnp.zeros(()))

    def collect(
        self, key: Key, params: Params, world: World, critic_params: Params = None, net_state: Any = None
    ) -> tuple[World, Collected]:
        """T steps of the policy at ``params`` in all E environments, weighted.

        Args:
            key: of actions, dynamics and new episodes.
            params: of the policy.
            world: where the last rollout ended.
            critic_params: of the critic, where there is one.
            net_state: the state of the policy's network; None for the one that it started with.
        """
        world, played = self.play(key, params, world, net_state)
        return world, self.judge(played, critic_params)

    def play(self, key: Key, params: Params, world: World, net_state: Any = None) -> tuple[World, Played]:
        """The first half of :meth:`collect`: what happens, before anything is said of it."""
        net = self.net if net_state is None else Net(self.net.params, net_state, self.net.apply)

        def step(world: World, key: Key) -> tuple[World, Any]:
            key_act, key_env, key_reset = jax.random.split(key, 3)
            actions = act(key_act, net, self.likelihood, params, world.observation)
            observation, state, reward, terminated, truncated = step_all(key_env, self.env, world.state, actions)
            over, total = terminated | truncated, world.total + reward
            fresh = self.start(key_reset)
            number = jnp.sum(over)
            mean = jnp.sum(jnp.where(over, total, 0.0)) / jnp.maximum(number, 1)
            observed, started = _where(over, (fresh.observation, fresh.state), (observation, state))
            new = World(observed, started, jnp.where(over, 0.0, total), world.episode_return)
            return new, (Played(world.observation, actions, observation, reward, terminated, truncated), mean, number)

        world, (played, means, numbers) = jax.lax.scan(step, world, jax.random.split(key, self.num_steps))
        total = jnp.sum(numbers)
        episode_return = jnp.where(total > 0, jnp.sum(means * numbers) / jnp.maximum(total, 1), world.episode_return)
        return world._replace(episode_return=episode_return), played

    def judge(self, played: Played, critic_params: Params = None) -> Collected:
        """The second half of :meth:`collect`: weights of decisions, and goals of the critic."""
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (played.observations, played.actions))
        advantages, before = self.advantages(played, critic_params, self.trace)
        weights = self.weigh(advantages.reshape(-1))
        goals = None
        if self.critic is not None:
            goals = Batch(flat[0], as_targets((advantages + before).reshape(-1), self.critic.net, flat[0]))
        effective = jnp.sum(weights) ** 2 / (len(weights) * jnp.sum(weights**2))
        decisions = jax.lax.stop_gradient(Batch(flat[0], flat[1], weights))
        over = jnp.sum(played.terminated | played.truncated)
        return Collected(decisions, jax.lax.stop_gradient(goals), jnp.mean(played.rewards), over, effective)

    def advantages(self, played: Played, critic_params: Params, trace: Scalar) -> tuple[jax.Array, jax.Array]:
        """Advantages, and what the critic says of each observation; both (T, E)."""
        if self.critic is None:
            before = later = jnp.zeros(played.rewards.shape)
        else:
            flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (played.observations, played.later))
            before, later = (values(self.critic.net, critic_params, x).reshape(played.rewards.shape) for x in flat)
        ended = (played.terminated, played.truncated)
        return advantages_of(played.rewards, before, later, *ended, self.discount, trace), before


def rollouts(
    net: Net,
    env: Environment,
    num_envs: int,
    num_steps: int,
    discount: Scalar,
    *,
    weigh: Callable[[jax.Array], jax.Array] | None = None,
    critic: Critic | None = None,
    trace: Scalar = 0.95,
    likelihood: Likelihood | None = None,
) -> Rollouts:
    """How a policy makes its own experience: many environments side by side, some steps at a time.

    The E-step of control as inference: every decision is weighed by how well it turned out. Its ``data`` are what
    ``fit`` is given beside :func:`on_policy`.

    Without a critic, what a decision earned is the sum of the rewards that follow in the rollout, as far as the episode
    goes; what lies beyond the end of the rollout, or beyond a truncation, is not counted. So give a critic where
    episodes are longer than ``num_steps``.

    Args:
        net: the policy, observations (B, ...) to outputs.
        env: what it acts in.
        num_envs: E, environments side by side.
        num_steps: T, steps of each in one rollout. Episodes go on from rollout to rollout.
        discount: of later rewards, in [0, 1].
        weigh: advantages (N,) to weights (N,) of at least 0; None for ``advantage_weights(1.0)``.
        critic: from :func:`critic`; None for none.
        trace: lambda of the advantages, in [0, 1]; 1 where there is no critic.
        likelihood: the distribution of actions given the outputs; None for :func:`bayestl.likelihoods.categorical`.

    Raises:
        TypeError: an environment without the signature of :class:`Environment`.
        ValueError: observations that do not fit the networks; actions that are not numbers of one shape; weights that
            are not one for each decision; numbers out of range.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 2))
        >>> made = btl.control.rollouts(net, btl.control.cartpole(), num_envs=3, num_steps=5, discount=0.99)
        >>> world, collected = made.collect(jax.random.key(1), net.params, made.start(jax.random.key(2)))
        >>> collected.decisions.inputs.shape, round(float(collected.decisions.weights.mean()), 3)
        ((15, 4), 1.0)
    """
    check_arguments(rollouts, locals())
    likelihood = likelihoods.categorical() if likelihood is None else likelihood
    check_at_least(1, num_envs=num_envs, num_steps=num_steps)
    for name, value in (("discount", discount), ("trace", trace)):
        if _tree.is_concrete(value) and not 0 <= float(value) <= 1:
            raise ValueError(f"{name} is {value}; it must lie in [0, 1]")
    observation, _ = check_policy(net, net.params, likelihood, env)
    if critic is not None:
        check_critic(critic.net, observation)
    weigh = advantage_weights(1.0) if weigh is None else weigh
    _check_weigh(weigh, num_envs * num_steps)
    trace = trace if critic is not None else 1.0
    discount, trace = jnp.asarray(discount, jnp.float32), jnp.asarray(trace, jnp.float32)
    return Rollouts(net, env, likelihood, num_envs, num_steps, discount, trace, weigh, critic)


def without_methods(rollouts: Rollouts) -> Rollouts:
    """The same without what the critic learns by, so that methods made anew share programs that do not learn."""
    critic = rollouts.critic
    return rollouts if critic is None else rollouts._replace(critic=critic._replace(inference=None, starts=()))


def _check_weigh(weigh: Any, num: int) -> None:
    weights = jax.eval_shape(weigh, jax.ShapeDtypeStruct((num,), jnp.float32))
    shape = getattr(weights, "shape", None)
    if shape != (num,):
        raise ValueError(
            f"weigh makes shape {shape} of the advantages of {num} decisions; it must give a weight for each"
        )


def _where(over: jax.Array, fresh: Any, old: Any) -> Any:
    """Environments that are over start anew."""
    return jax.tree.map(lambda a, b: jnp.where(over.reshape(-1, *[1] * (a.ndim - 1)), a, b), fresh, old)
