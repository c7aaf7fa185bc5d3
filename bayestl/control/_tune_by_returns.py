"""Which prior, by what comes of it: successive halving over settings, by returns earned on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._arguments import check_arguments, check_at_least
from bayestl._data_size import sized
from bayestl._types import Arrays, Inference, Key, Params, Posterior
from bayestl.control._rollouts import Rollouts

# What makes a method of a setting, and the number of decisions in a rollout.
_Recipe = tuple[Callable[[Any], Inference], int]


class TunedByReturns(NamedTuple):
    """Attributes:
    index: of the setting that was left over.
    posterior: of the policy, after all rollouts of that setting.
    state: of its method; an :class:`OnPolicyState`.
    earned: (rounds, M), what every setting earned for each episode that ended in a round; nan once it was out.
    rollouts: (M,), how many rollouts each setting was given; their sum is the bill.
    """

    index: int
    posterior: Posterior
    state: Any
    earned: np.ndarray
    rollouts: np.ndarray


def tune_by_returns(
    key: Key,
    make_inference: Callable[[Any], Inference],
    settings: Arrays,
    params: Params,
    rollouts: Rollouts,
    *,
    num_rollouts: int,
    per_round: int = 1,
    look: Callable[[int, Posterior], None] | None = None,
) -> TunedByReturns:
    """Choose a setting, such as a prior's scale, by the returns that are earned while learning under it.

    Successive halving: all settings learn side by side, and after each round the half that earned less is left. What is
    left of the budget goes to the last one, which goes on where it stands. Every rollout counts, also of those that
    were left, so the whole costs no more than one run of ``num_rollouts``.

    Where an expert shows a few decisions of the target, no rollout is needed: they are labels, and ``btl.transfer`` or
    ``tune`` choose the scale from them.

    Args:
        key: of all runs.
        make_inference: setting -> :func:`on_policy`, with the setting's numbers as they come (they are tracers).
            The same function again compiles nothing anew.
        settings: pytree of arrays with a leading axis M.
        params: where the policy starts.
        rollouts: those that ``make_inference`` uses.
        num_rollouts: the budget, of all settings together.
        per_round: rollouts of each setting between two choices.
        look: called after each rollout of all settings that are in, with the number of rollouts so far and the
            posterior of the one that is ahead: for a learning curve.

    Raises:
        ValueError: a budget too small to choose; settings without a common leading axis.

    Reference:
        Karnin, Koren and Somekh 2013, "Almost Optimal Exploration in Multi-Armed Bandits"; Jamieson and Talwalkar 2016,
        "Non-stochastic Best Arm Identification and Hyperparameter Optimization".

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 2))
        >>> made = btl.control.rollouts(net, btl.control.cartpole(), num_envs=4, num_steps=32, discount=0.99)
        >>> def make(scale):
        ...     prior = btl.gaussians.isotropic(net.params, scale)
        ...     joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior)
        ...     return btl.control.on_policy(btl.infer.map_estimate(joint, optax.adam(0.01)), made)
        >>> tuned = btl.control.tune_by_returns(
        ...     jax.random.key(1), make, jnp.array([0.01, 1.0]), net.params, made, num_rollouts=6
        ... )
        >>> tuned.rollouts.sum(), tuned.earned.shape
        (np.int64(6), (1, 2))
    """
    check_arguments(tune_by_returns, locals())
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(settings)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(f"settings has leading axes {sorted(sizes)}; every leaf needs the same one, of M settings")
    num = int(sizes.pop()[0])
    if num == 0:
        raise ValueError("settings hold no setting: their leading axis has length 0; give at least one")
    check_at_least(1, num_rollouts=num_rollouts, per_round=per_round)
    needed = per_round * sum(_sizes_of_rounds(num))
    if num_rollouts < needed:
        raise ValueError(f"num_rollouts is {num_rollouts}, and choosing among {num} settings takes {needed}")

    keys = jax.vmap(lambda member: jax.random.fold_in(key, member))(jnp.arange(num))
    recipe = (make_inference, rollouts.num_decisions)
    states = _start(recipe, settings, keys, params)
    members, done, counts, earned = np.arange(num), 0, np.zeros(num, int), []
    while done < num_rollouts:
        rewards, episodes = np.zeros(len(members)), np.zeros(len(members))
        choosing = len(members) > 1
        for _ in range(per_round if choosing else num_rollouts - done):
            now = jax.vmap(jax.random.fold_in)(keys[members], jnp.asarray(1 + counts[members]))
            states, info = _step(recipe, settings, states, now)
            rewards += np.asarray(info.reward) * rollouts.num_decisions
            episodes += np.asarray(info.episodes)
            counts[members] += 1
            done += len(members)
            if look is not None:
                look(done, _leader(recipe, settings, states, np.argmax(rewards / np.maximum(episodes, 1))))
        if choosing:
            each = rewards / np.maximum(episodes, 1)
            earned.append(np.full(num, np.nan))
            earned[-1][members] = each
            left = np.sort(np.argsort(-each, kind="stable")[: math.ceil(len(members) / 2)])
            members = members[left]
            settings, states = jax.tree.map(lambda x, left=left: x[left], (settings, states))
    return TunedByReturns(
        int(members[0]),
        _leader(recipe, settings, states, 0),
        jax.tree.map(lambda x: x[0], states),
        np.array(earned),
        counts,
    )


@partial(jax.jit, static_argnums=0)
def _start(recipe: _Recipe, settings: Any, keys: Any, params: Params) -> Any:
    return jax.vmap(lambda setting, key: _method(recipe, setting).init(key, params))(settings, keys)


@partial(jax.jit, static_argnums=0)
def _step(recipe: _Recipe, settings: Any, states: Any, keys: Any) -> Any:
    unread: Any = None  # on_policy makes its own data
    return jax.vmap(lambda setting, state, key: _method(recipe, setting).step(key, state, unread))(
        settings, states, keys
    )


@partial(jax.jit, static_argnums=0)
def _leader(recipe: _Recipe, settings: Any, states: Any, number: Any) -> Posterior:
    setting, state = jax.tree.map(lambda x: x[number], (settings, states))
    return _method(recipe, setting).posterior(state)


def _method(recipe: _Recipe, setting: Any) -> Inference:
    make_inference, num_decisions = recipe
    return sized(make_inference(setting), num_decisions)


def _sizes_of_rounds(num: int) -> list[int]:
    """How many settings are in at every choice: 4, 2 for 4."""
    return [] if num == 1 else [num, *_sizes_of_rounds(math.ceil(num / 2))]
