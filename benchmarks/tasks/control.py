"""CartPole under other physics, from policies that were trained on it: is the source worth anything, and how much?

Six published runs of PPO on CartPole-v1 leave a policy, a value network, and the iterates of their last steps. The four
targets are a weaker push on heavier things, stronger gravity, a longer pole, and a cart whose two actions are swapped:
there the source is wrong by design. Every method has the same 20 rollouts of 1024 decisions. What all methods share
(temperature, learning rate, passes) is chosen on the source's own task, from scratch; the scale of a prior is chosen on
the three other targets; so that nothing is chosen on the target that is scored.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks.tasks.control_ppo import ppo

POLICIES = Path("control") / "cartpole_source_policies.npz"
SOURCE_TASK = "source"
TARGETS = ("weak", "gravity", "long", "swapped")
SCRATCH, SOURCE, WITH_CRITIC = "from scratch", "source as initial policy", "source with its critic"
L2_SP, LEARNED, KL, VI = "L2-SP", "learned prior, iterates", "KL to the source", "L2-SP, VI (Thompson)"
PPO_SCRATCH, PPO_SOURCE, PPO_CRITIC = "PPO from scratch", "PPO, source policy", "PPO, source with its critic"
CHOSEN = "L2-SP or scratch, by first returns"
RUN = (SCRATCH, SOURCE, WITH_CRITIC, L2_SP, LEARNED, KL, VI, PPO_SCRATCH, PPO_SOURCE, PPO_CRITIC)
METHODS = (*RUN[:7], CHOSEN, *RUN[7:])
TUNED_EM, TUNED_PPO = "settings of expectation-maximisation", "settings of PPO"
READ_AT = (0, 1, 5, 20)  # thousands of steps
PROBE = 64  # steps of each environment before a start is chosen


class Config(NamedTuple):
    """What is run.

    Attributes:
        targets: names of those that are run.
        seeds: seed i starts at the source's run i, of which there are 6.
        rollouts: of every run.
        num_envs: environments side by side.
        num_steps: of each in one rollout.
        discount: of rewards.
        scales: standard deviations of priors around the source's weights.
        factors: on the covariance that the source's iterates give.
        strengths: decisions that the source counts in the prior over actions.
        temperatures: of advantages; chosen on the source's task, as the rates.
        rates: learning rates of policy and critic.
        passes: over the decisions of a rollout, for the shared choice.
        noise: standard deviation of returns around the critic.
        episodes: whole episodes for every point of a learning curve.
    """

    targets: tuple[str, ...] = TARGETS
    seeds: int = 6
    rollouts: int = 20
    num_envs: int = 8
    num_steps: int = 128
    discount: float = 0.99
    scales: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    factors: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    strengths: tuple[float, ...] = (30.0, 100.0, 300.0, 1000.0)
    temperatures: tuple[float, ...] = (0.25, 0.5, 1.0)
    rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    passes: tuple[int, ...] = (10, 20)
    noise: float = 10.0
    episodes: int = 16


class Source(NamedTuple):
    """What the source's runs left, with a leading axis of runs: last weights, and iterates (run, iterate, ...)."""

    policy: Any
    critic: Any
    iterates: Any


class Shared(NamedTuple):
    """What all runs of one kind share, chosen on the source's task."""

    temperature: float
    rate: float
    passes: int


class Member(NamedTuple):
    """One run among those of a program."""

    seed: int
    setting: float
    shared: Shared


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


def run(config: Config, rows: Rows, data_dir: Path) -> None:
    """All runs that are not among the rows yet."""
    left = source(data_dir, config.seeds)
    common = {kind: shared(config, rows, kind) for kind in (TUNED_EM, TUNED_PPO)}
    for target in config.targets:
        for method in RUN:
            if not rows.have(target=target, method=method):
                kind = TUNED_PPO if method.startswith("PPO") else TUNED_EM
                rows.add(_rows(config, left, target, method, [common[kind]]))
                areas = [row["area"] for row in rows.rows if (row["target"], row["method"]) == (target, method)]
                print(f"{target}, {method}: area {np.mean(areas):.0f}", flush=True)
        if not rows.have(target=target, method=CHOSEN):
            rows.add(_probe(config, left, target))


def shared(config: Config, rows: Rows, kind: str) -> Shared:
    """The settings with the largest area on the source's task, from scratch."""
    if not rows.have(target=SOURCE_TASK, method=kind):
        # PPO has no temperature, and its usual rates and numbers of passes are smaller.
        is_em = kind == TUNED_EM
        rates, temperatures = (config.rates, config.temperatures) if is_em else ((0.0003, *config.rates[:2]), (1.0,))
        for passes in config.passes if is_em else (4, config.passes[0]):
            common = [Shared(temperature, rate, passes) for temperature in temperatures for rate in rates]
            made = _rows(config, None, SOURCE_TASK, SCRATCH if is_em else PPO_SCRATCH, common)
            rows.add([{**row, "method": kind} for row in made])
            print(f"{kind}, {passes} passes: done", flush=True)
    areas: dict[Shared, list[float]] = {}
    for row in rows.rows:
        if row["target"] == SOURCE_TASK and row["method"] == kind:
            areas.setdefault(Shared(*row["shared"]), []).append(row["area"])
    return max(areas, key=lambda each: float(np.mean(areas[each])))


def _rows(
    config: Config, left: Source | None, target: str, method: str, common: Sequence[Shared]
) -> list[dict[str, Any]]:
    """One method on one target: all seeds, all its settings and all shared ones, of equal passes, in one program."""
    settings, members = starts(config, left, method, common)
    policy = settings["policy"]
    made = rollouts(config, target, VALUE, 1.0, optax.sgd(0.0))
    curve: list[np.ndarray] = [_evaluated(config, btl.Point(policy), target)]

    def look(progress: Any) -> bool:
        curve.append(_evaluated(config, progress.posterior(), target))
        return False

    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(20), seed))(settings["seed"])
    began = time.perf_counter()
    with warnings.catch_warnings():
        # Returns of a pole that stands are cut at 500 steps: that is the task.
        warnings.simplefilter("ignore", UserWarning)
        many = btl.fit_many(
            keys,
            functools.partial(inference, config, target, method, common[0].passes),
            settings,
            policy,
            made.data,
            steps=config.rollouts,
            chunk_size=1,
            callbacks=[look],
            params_axis=0,
            vectorize=jax.vmap,
            progress=False,
        )
    curves = np.stack(curve, 1)  # (M, rollouts + 1)
    record = provenance(command_line())
    seconds = (time.perf_counter() - began - many.compile_seconds) / len(members)
    return [
        {
            **record,
            "target": target,
            "method": method,
            "seed": member.seed,
            "setting": member.setting,
            "shared": list(member.shared),
            "curve": [round(float(x), 2) for x in one],
            "area": area(one),
            "failed": int(failed),
            "seconds": seconds,
            "compile_seconds": many.compile_seconds,
        }
        for member, one, failed in zip(members, curves, many.failed, strict=True)
    ]


def area(curve: np.ndarray) -> float:
    """The mean return over the steps of a run, by the trapezoidal rule."""
    return float(np.trapezoid(curve) / (len(curve) - 1))


def starts(
    config: Config, left: Source | None, method: str, common: Sequence[Shared]
) -> tuple[dict[str, Any], list[Member]]:
    """What differs between members, with a leading axis, and who they are."""
    grid = {L2_SP: config.scales, VI: config.scales, LEARNED: config.factors, KL: config.strengths}.get(method, (0.0,))
    members = [Member(seed, number, each) for each in common for number in grid for seed in range(config.seeds)]
    fresh_policy, fresh_critic = fresh(config.seeds)
    settings: dict[str, Any] = {"policy": fresh_policy, "critic": fresh_critic}
    if left is not None and method not in (SCRATCH, PPO_SCRATCH):
        settings["policy"] = left.policy
        settings["critic"] = fresh_critic if method in (SOURCE, PPO_SOURCE) else left.critic
    if left is not None and method == LEARNED:
        settings["prior"] = _from_iterates(left.iterates)
    if method == KL:
        settings["observations"] = _observations(settings["policy"])
    seeds = np.array([member.seed for member in members])
    settings = jax.tree.map(lambda x: x[seeds], settings)
    numbers = {
        "seed": seeds,
        "number": [member.setting for member in members],
        "temperature": [member.shared.temperature for member in members],
        "rate": [member.shared.rate for member in members],
    }
    return settings | {name: jnp.asarray(each) for name, each in numbers.items()}, members


def fresh(seeds: int) -> tuple[Any, Any]:
    """New policies whose actions are nearly even, and new critics, with a leading axis of seeds."""

    def one(key: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key)
        policy = btl.nets.mlp(keys[0], (4, 32, 32, 2), jnp.tanh).params
        policy["head"] = jax.tree.map(lambda x: 0.01 * x, policy["head"])
        return policy, btl.nets.mlp(keys[1], (4, 32, 32, 1), jnp.tanh).params

    each = [one(jax.random.fold_in(jax.random.key(10), seed)) for seed in range(seeds)]
    return jax.tree.map(lambda *xs: jnp.stack(xs), *each)


def _from_iterates(iterates: Any) -> Any:
    """Priors from the last iterates of each run, with a leading axis of seeds."""
    runs = len(jax.tree.leaves(iterates)[0])
    priors = [
        btl.sources.from_iterates(jax.tree.map(lambda x, r=r: x[r], iterates), rank=10, eps=1e-5) for r in range(runs)
    ]
    return jax.tree.map(lambda *xs: jnp.stack(xs), *priors)


def _observations(policies: Any) -> jax.Array:
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


def rollouts(
    config: Config, target: str, value: btl.Net, temperature: Any, optimizer: optax.GradientTransformation
) -> btl.control.Rollouts:
    """Experience of the target with a critic at ``value``."""
    joint = btl.LogJoint(value, btl.likelihoods.normal(config.noise), None)
    critic = btl.control.critic(value, btl.infer.map_estimate(joint, optimizer))
    weigh = btl.control.advantage_weights(temperature)
    sizes = (config.num_envs, config.num_steps, config.discount)
    return btl.control.rollouts(POLICY, environment(target), *sizes, weigh=weigh, critic=critic)


def inference(config: Config, target: str, method: str, passes: int, setting: Any) -> btl.Inference:
    """The method of one member."""
    value = btl.Net(setting["critic"], (), VALUE.apply)
    optimizer = optax.adam(setting["rate"])
    made = rollouts(config, target, value, setting["temperature"], optimizer)
    if method.startswith("PPO"):
        params = {"policy": setting["policy"], "critic": setting["critic"]}
        return ppo(made, params, setting["rate"], passes, 4)
    joint = btl.LogJoint(POLICY, btl.likelihoods.categorical(), _prior(method, setting))
    if method == VI:
        inner = btl.infer.mean_field_vi(joint, optimizer, initial_scale=0.1 * setting["number"])
    else:
        inner = btl.infer.map_estimate(joint, optimizer)
    return btl.control.on_policy(inner, made, passes=passes, minibatches=4)


def _prior(method: str, setting: Any) -> Any:
    if method in (L2_SP, VI):
        return btl.gaussians.isotropic(setting["policy"], setting["number"])
    if method == LEARNED:
        return setting["prior"].rescale(setting["number"])
    if method == KL:
        return btl.control.kl_prior(POLICY, setting["policy"], setting["observations"], setting["number"])
    return None


class _Policies(NamedTuple):
    """Given policies in place of drawn ones, so that ``returns`` plays those of all members in one program."""

    policies: Any

    def sample(self, key: Any, num_samples: int) -> Any:
        return self.policies


def _evaluated(config: Config, posterior: Any, target: str) -> np.ndarray:
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
    num = len(jax.tree.leaves(policies)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        earned = btl.control.returns(
            jax.random.key(41),
            _Policies(policies),
            POLICY,
            environment(target),
            config.episodes // num_draws,
            num_draws=num,
        )
    return earned.per_draw.reshape(-1, num_draws).mean(1)


def _probe(config: Config, left: Source, target: str) -> list[dict[str, Any]]:
    """What the source's policy and a fresh one earn for each episode that ends, before anything is learned.

    Both play ``PROBE`` steps in all environments, which together cost one of the rollouts. Their learning curves come
    from the rows of L2-SP and from scratch, begun one rollout later."""
    made = btl.control.rollouts(POLICY, environment(target), config.num_envs, PROBE, config.discount)
    rows, began = [], time.perf_counter()
    for seed in range(config.seeds):
        starts = {L2_SP: left.policy, SCRATCH: fresh(config.seeds)[0]}
        starts = jax.tree.map(lambda x, s=seed: x[s], starts)
        earned = btl.control.first_returns(jax.random.fold_in(jax.random.key(50), seed), made, starts)
        rows.append(
            {
                **provenance(command_line()),
                "target": target,
                "method": CHOSEN,
                "seed": seed,
                "setting": 0.0,
                "earned": earned,
                "choice": max(earned, key=lambda name: earned[name]),
                "seconds": (time.perf_counter() - began) / (seed + 1),
            }
        )
    return rows
