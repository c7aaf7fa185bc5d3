"""What several policies earn before any of them learns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._static import Static, partition
from bayestl._types import Key, Params
from bayestl.control._rollouts import Rollouts


def first_returns(key: Key, rollouts: Rollouts, policies: Mapping[str, Params]) -> dict[str, float]:
    """What each policy earns for every episode that ends, in one rollout of its own, without learning anything.

    A source that misleads shows at once: it earns less than a fresh policy. Each policy costs ``num_envs * num_steps``
    steps of the environment, which belong to the bill of whatever is trained then. The number is the sum of all rewards
    over the episodes that ended, so that long episodes, of which few end in a rollout, are not left out.

    Args:
        key: of the episodes; all policies start in the same ones.
        rollouts: in which environments they play, and for how long.
        policies: name to parameters of ``rollouts.net``, such as ``{"source": ..., "fresh": ...}``.

    Returns:
        Name to the estimate, in the unit of the rewards; where no episode ended, the sum of all rewards, of which the
        mean return is then likely higher.

    Raises:
        ValueError: no policies, or parameters that differ from the network's.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 2))
        >>> made = btl.control.rollouts(net, btl.control.cartpole(), num_envs=4, num_steps=64, discount=0.99)
        >>> earned = btl.control.first_returns(jax.random.key(1), made, {"fresh": net.params})
        >>> earned["fresh"] > 5
        True
    """
    check_arguments(first_returns, locals())
    if not policies:
        raise ValueError("policies is empty; give at least one, {'source': params}")
    for name, params in policies.items():
        _tree.check_floating(f"policies[{name!r}]", params)
        _tree.check_same_structure(
            f"policies[{name!r}]", params, "rollouts.net.params", rollouts.net.params, "give a policy of this network"
        )
    # Whatever a critic would say of them, only rewards are asked for.
    arrays, static = partition(rollouts._replace(critic=None))
    return {name: float(np.asarray(_earned(static, arrays, key, params))) for name, params in policies.items()}


@partial(jax.jit, static_argnums=0)
def _earned(static: Static, arrays: list[Any], key: Key, params: Params) -> jax.Array:
    rollouts: Rollouts = static.combine(arrays)
    key_start, key_play = jax.random.split(key)
    _, collected = rollouts.collect(key_play, params, rollouts.start(key_start))
    return collected.reward * rollouts.num_decisions / jax.numpy.maximum(collected.episodes, 1)
