"""The tasks of control, their networks, and what the runs of the source left."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl

POLICIES = Path("control") / "cartpole_source_policies.npz"
SOURCE_TASK = "source"
AT_ONCE = 6  # runs of which returns are taken in one program
TARGETS = ("weak", "gravity", "long", "swapped")


class Source(NamedTuple):
    """What the source's runs left, with a leading axis of runs: last weights, and iterates (run, iterate, ...)."""

    policy: Any
    critic: Any
    iterates: Any


POLICY = btl.nets.mlp(jax.random.key(0), (4, 32, 32, 2), jnp.tanh)
VALUE = btl.nets.mlp(jax.random.key(0), (4, 32, 32, 1), jnp.tanh)


def seen(observation: jax.Array) -> jax.Array:
    """What the source's networks were given: the pole's angle counts tenfold."""
    return observation * jnp.array([1.0, 1.0, 10.0, 1.0])


def environment(target: str) -> btl.control.Environment:
    """The source's task, or one of the targets."""
    env = btl.control.map_observations(btl.control.cartpole(), seen)
    changes = {
        SOURCE_TASK: {},
        "weak": {"masscart": 2.0, "masspole": 0.5, "force": 3.0},
        "gravity": {"gravity": 30.0},
        "long": {"length": 2.5},
        "swapped": {},
    }[target]
    env = btl.control.vary(env, **changes)
    return btl.control.swap_actions(env) if target == "swapped" else env


def source(data_dir: Path, seeds: int) -> Source:
    """The first ``seeds`` published runs.

    Raises:
        SystemExit: more seeds than runs.
    """
    trees: dict[str, Any] = {"policy": {}, "value": {}}
    with np.load(data_dir / POLICIES, allow_pickle=False) as arrays:
        runs = len(arrays[arrays.files[0]])
        if not 1 <= seeds <= runs:
            raise SystemExit(f"--seeds is {seeds}; there are {runs} runs of the source, one for each seed")
        for name in arrays.files:
            network, layer, leaf = name.split("/")
            trees[network].setdefault(layer, {})[leaf] = jnp.asarray(arrays[name][:seeds])
    policy, critic = (jax.tree.map(lambda x: x[:, -1], trees[name]) for name in ("policy", "value"))
    return Source(policy, critic, trees["policy"])


def fresh(seeds: int) -> tuple[Any, Any]:
    """New policies whose actions are nearly even, and new critics, with a leading axis of seeds."""

    def one(key: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key)
        policy = btl.nets.mlp(keys[0], (4, 32, 32, 2), jnp.tanh).params
        policy["head"] = jax.tree.map(lambda x: 0.01 * x, policy["head"])
        return policy, btl.nets.mlp(keys[1], (4, 32, 32, 1), jnp.tanh).params

    each = [one(jax.random.fold_in(jax.random.key(10), seed)) for seed in range(seeds)]
    return jax.tree.map(lambda *xs: jnp.stack(xs), *each)


def priors_of_iterates(iterates: Any) -> Any:
    """Priors from the last iterates of each run, with a leading axis of seeds."""
    runs = len(jax.tree.leaves(iterates)[0])
    priors = [
        btl.sources.from_iterates(jax.tree.map(lambda x, r=r: x[r], iterates), rank=10, eps=1e-5) for r in range(runs)
    ]
    return jax.tree.map(lambda *xs: jnp.stack(xs), *priors)


def observations(policies: Any) -> jax.Array:
    """What each source policy saw in its own task, (seeds, 256, 4): where the two policies are compared."""
    seeds = len(jax.tree.leaves(policies)[0])
    env = environment(SOURCE_TASK)
    states = []
    for seed in range(seeds):
        net = btl.Net(jax.tree.map(lambda x, s=seed: x[s], policies), (), POLICY.apply)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            data = btl.control.demonstrations(jax.random.key(30 + seed), net, env, 4)
        rows = np.random.default_rng(seed).permutation(len(data.inputs))[:256]
        states.append(np.resize(np.asarray(data.inputs)[rows], (256, 4)))
    return jnp.asarray(np.stack(states))


class _Policies(NamedTuple):
    """Given policies in place of drawn ones, so that ``returns`` plays those of all members in one program."""

    policies: Any

    def sample(self, key: Any, num_samples: int) -> Any:
        return self.policies


def evaluated(posterior: Any, target: str, episodes: int) -> np.ndarray:
    """Mean returns of every member, (M,): of its point, or of four draws of a Gaussian."""
    if isinstance(posterior, btl.Point):
        num_draws, policies = 1, posterior.params
    else:
        num_draws = 4
        members = len(jax.tree.leaves(posterior)[0])
        draws = jax.vmap(lambda key, q: q.sample(key, num_draws))(
            jax.random.split(jax.random.key(40), members), posterior
        )
        policies = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), draws)
    # Some at a time, and on no device in particular, so that methods share one program.
    policies = jax.tree.map(np.asarray, policies)
    num = len(jax.tree.leaves(policies)[0])
    at_once = math.gcd(num, AT_ONCE * num_draws)
    env, each = environment(target), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for first in range(0, num, at_once):
            some = _Policies(jax.tree.map(lambda x, f=first: x[f : f + at_once], policies))
            earned = btl.control.returns(
                jax.random.key(41), some, POLICY, env, episodes // num_draws, num_draws=at_once
            )
            each.append(earned.per_draw)
    return np.concatenate(each).reshape(-1, num_draws).mean(1)
