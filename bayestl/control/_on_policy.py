"""Learning from one's own experience, by any method."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments, check_at_least
from bayestl._data_size import repeated, with_prior
from bayestl._static import Static, partition
from bayestl._types import Batch, Inference, Key, NetState, Params, Posterior
from bayestl.control._critic import Critic
from bayestl.control._rollouts import Played, Rollouts, World, without_methods
from bayestl.training import point_of


class OnPolicyState(NamedTuple):
    """Attributes:
    method: the state of the method around which it is.
    world: where the environments stand.
    critic: the state of the critic's method, or None.
    count: rollouts so far.
    """

    method: Any
    world: World
    critic: Any
    count: jax.Array

    @property
    def net_state(self) -> NetState:
        """The state of the policy's network."""
        return getattr(self.method, "net_state", ())


class OnPolicyInfo(NamedTuple):
    """Attributes:
    objective: the method's, at its last minibatch.
    episode_return: the mean return of the episodes that ended last, undiscounted; 0 before any has.
    reward: the mean reward of a step in this rollout.
    episodes: how many episodes ended in this rollout.
    effective: the share of the decisions that count, ``(sum w)^2 / (N sum w^2)``, in (0, 1].
    critic_objective: of the critic's method at its last minibatch; None without one.
    critic_start: in the first rollout where the critic began, 0 for its network's parameters, 1 for the first of
        ``starts``; -1 in later rollouts; None without ``starts``.
    """

    objective: jax.Array
    episode_return: jax.Array
    reward: jax.Array
    episodes: jax.Array
    effective: jax.Array
    critic_objective: jax.Array | None
    critic_start: jax.Array | None


def on_policy(
    method: Inference,
    rollouts: Rollouts,
    *,
    passes: int = 4,
    minibatches: int = 4,
    accumulate: bool = True,
    next_prior: Callable[[Posterior, Batch, jax.Array], Any] | None = None,
    critic_first: bool = False,
) -> Inference:
    """A method that makes its own data: each step acts, weighs what it did, and learns from that.

    Control as inference by expectation-maximisation. A step collects N = T E decisions (E-step: weights
    ``exp(A / tau)``), and then gives the method ``passes * minibatches`` batches of them (M-step: the weighted log
    likelihood and the log prior, which is what a :class:`~bayestl.LogJoint` is). It acts with a draw from the current
    posterior: the point under MAP, where the chain stands under SGLD and SGHMC, a new draw for each rollout of a
    Gaussian (Thompson sampling).

    Run it as any other method, on ``rollouts.data``, whose ``batch_size`` means nothing here. The prior is held against
    the log joint's N, which is the number of decisions of a rollout unless it says another, times the number of
    rollouts so far: what was lived through before still counts, although only the last rollout is looked at. So the
    prior matters most at first.

    Args:
        method: such as :func:`bayestl.infer.map_estimate`, around a log joint of the policy.
        rollouts: how experience is made.
        passes: over the decisions of a rollout.
        minibatches: into which a pass is cut; it divides N.
        accumulate: False to hold the prior against one rollout for ever.
        next_prior: ``(posterior, decisions, count) -> prior`` of each rollout, from the posterior after the ``count``
            rollouts before it: yesterday's posterior is today's prior, which is held against one rollout. Of the
            decisions it may look at the observations; actions and weights are the data. The log joint's own prior then
            is not looked at. None to hold that one throughout.
        critic_first: True to fit the critic to a rollout before it judges the decisions of the same rollout; a new
            critic is then of use at once. False to fit both to what the last critic said.

    Raises:
        ValueError: minibatches that do not divide N; numbers below 1. On the start of a run also parameters that are
            not the policy's, rewards that are not finite, weights that are negative or not finite.

    Warns:
        UserWarning: no episode ended in a rollout of the start, although there is no critic to say what is beyond it.
        RuntimeWarning: from ``fit``, where rewards are not finite later on: the run stops at the state before.

    Reference:
        Dayan and Hinton 1997, "Using Expectation-Maximization for Reinforcement Learning"; Abdolmaleki et al. 2018,
        "Maximum a Posteriori Policy Optimisation".

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 2), jax.nn.tanh)
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> method = btl.infer.map_estimate(btl.LogJoint(net, btl.likelihoods.categorical(), prior), optax.adam(1e-2))
        >>> made = btl.control.rollouts(net, btl.control.cartpole(), num_envs=4, num_steps=32, discount=0.95)
        >>> result = btl.fit(
        ...     jax.random.key(1), btl.control.on_policy(method, made), net.params, made.data, steps=3, progress=False
        ... )
        >>> result.history["episode_return"].shape
        (3,)
    """
    check_arguments(on_policy, locals())
    check_at_least(1, passes=passes, minibatches=minibatches)
    if rollouts.num_decisions % minibatches:
        raise ValueError(
            f"minibatches is {minibatches}, which does not divide the {rollouts.num_decisions} decisions of a rollout"
        )
    return Inference(
        Partial(_init, method.init, rollouts),
        Partial(
            _step, method.step, method.posterior, rollouts, passes, minibatches, accumulate, next_prior, critic_first
        ),
        Partial(_posterior, method.posterior),
        Partial(_check, method.check, rollouts),
    )


def _init(init: Any, rollouts: Rollouts, key: Key, params: Params) -> OnPolicyState:
    key_method, key_world, key_critic = jax.random.split(key, 3)
    critic = rollouts.critic
    critic_state = None if critic is None else critic.inference.init(key_critic, critic.net.params)
    return OnPolicyState(init(key_method, params), rollouts.start(key_world), critic_state, jnp.zeros((), jnp.int32))


def _step(
    step: Any,
    posterior: Any,
    rollouts: Rollouts,
    passes: int,
    minibatches: int,
    accumulate: bool,
    next_prior: Any,
    critic_first: bool,
    key: Key,
    state: OnPolicyState,
    batch: Batch,
) -> tuple[OnPolicyState, OnPolicyInfo]:
    key_draw, key_collect, key_method, key_critic = jax.random.split(key, 4)
    params = state.method.params if hasattr(state.method, "params") else _one(posterior(state.method), key_draw)
    net_state = state.net_state if jax.tree.leaves(state.net_state) else None
    world, played = rollouts.play(key_collect, params, state.world, net_state)
    critic, critic_start = state.critic, None
    if rollouts.critic is not None and rollouts.critic.starts:
        choose, goes_on = partial(_likeliest, rollouts, played), lambda x: (x, jnp.full((), -1, jnp.int32))
        critic, critic_start = jax.lax.cond(state.count == 0, choose, goes_on, critic)
    collected = rollouts.judge(played, None if rollouts.critic is None else point_of(critic))
    learn = partial(_learn, passes=passes, minibatches=minibatches)
    critic_objective = None
    if rollouts.critic is not None and collected.goals is not None:
        critic, critic_objective = learn(rollouts.critic.inference.step, key_critic, critic, collected.goals)
        if critic_first:
            collected = rollouts.judge(played, point_of(critic))
    if next_prior is not None:
        step = with_prior(step, next_prior(posterior(state.method), collected.decisions, state.count))
    elif accumulate:
        step = repeated(step, state.count + 1)
    method, objective = learn(step, key_method, state.method, collected.decisions)
    numbers = (world.episode_return, collected.reward, collected.episodes, collected.effective)
    info = OnPolicyInfo(objective, *numbers, critic_objective, critic_start)
    return OnPolicyState(method, world, critic, state.count + 1), info


def _one(posterior: Any, key: Key) -> Params:
    return jax.tree.map(lambda x: x[0], posterior.sample(key, 1))


def _likeliest(rollouts: Rollouts, played: Played, state: Any) -> tuple[Any, jax.Array]:
    """The state of the critic at that of its starts which predicts a rollout best, and which it is."""
    _, inference, starts = cast(Critic, rollouts.critic)
    others = [inference.init(jax.random.key(0), params) for params in starts]
    errors = [jnp.mean(rollouts.advantages(played, point_of(x), 1.0)[0] ** 2) for x in (state, *others)]
    best = jnp.argmin(jnp.stack(errors)).astype(jnp.int32)
    return jax.tree.map(lambda *xs: jnp.stack(xs)[best], state, *others), best


def _learn(step: Any, key: Key, state: Any, examples: Batch, *, passes: int, minibatches: int) -> tuple[Any, jax.Array]:
    """Passes over a rollout in another order each; the state after them, and the objective of the last minibatch."""
    num = len(jax.tree.leaves(examples)[0])
    key_order, key_steps = jax.random.split(key)
    order = jax.vmap(lambda k: jax.random.permutation(k, num))(jax.random.split(key_order, passes))
    rows = order.reshape(passes * minibatches, num // minibatches)

    def body(state: Any, now: tuple[jax.Array, Key]) -> tuple[Any, jax.Array]:
        rows, key = now
        state, info = step(key, state, jax.tree.map(lambda x: x[rows], examples))
        return state, info.objective

    state, objectives = jax.lax.scan(body, state, (rows, jax.random.split(key_steps, len(rows))))
    return state, objectives[-1]


def _posterior(posterior: Any, state: OnPolicyState) -> Any:
    return posterior(state.method)


def _check(check: Any, rollouts: Rollouts, params: Params, inputs: Any, targets: Any) -> None:
    """A first rollout, looked at before anything is learned from it."""
    fix = "start at parameters of the policy that acts"
    _tree.check_same_structure("params", params, "rollouts.net.params", rollouts.net.params, fix)
    critic_params = None if rollouts.critic is None else rollouts.critic.net.params
    arrays, static = partition(without_methods(rollouts))
    rewards_are_finite, ended, decisions = _first(static, arrays, params, critic_params)
    if not rewards_are_finite:
        raise ValueError(
            "the environment gives rewards that are not finite; look at env.step, or at actions that it does not expect"
        )
    weights = np.asarray(decisions.weights)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise ValueError("weigh gives weights that are negative or not finite; it must give numbers of at least 0")
    if rollouts.critic is None and not ended:
        warnings.warn(
            f"no episode ended within the {rollouts.num_steps} steps of a rollout, and there is no critic to say what "
            "is earned beyond it; give more num_steps, or a critic",
            UserWarning,
            stacklevel=2,
        )
    check(params, decisions.inputs, decisions.targets)


@partial(jax.jit, static_argnums=0)
def _first(static: Static, arrays: list[Any], params: Params, critic_params: Params) -> Any:
    rollouts = static.combine(arrays)
    keys = jax.random.split(jax.random.key(0))
    _, collected = rollouts.collect(keys[0], params, rollouts.start(keys[1]), critic_params)
    return jnp.isfinite(collected.reward), collected.episodes > 0, collected.decisions
