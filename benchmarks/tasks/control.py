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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks.tasks.control_config import (
    CHOSEN,
    KL,
    L2_SP,
    LEARNED,
    PPO_SCRATCH,
    PPO_SOURCE,
    PROBE,
    PROGRAMS,
    RUN,
    SCRATCH,
    SOURCE,
    TUNED_EM,
    TUNED_PPO,
    VI,
    Chosen,
    Config,
    Member,
    Shared,
    grid_of,
)
from benchmarks.tasks.control_ppo import ppo
from benchmarks.tasks.control_worlds import (
    POLICY,
    SOURCE_TASK,
    VALUE,
    Source,
    environment,
    evaluated,
    fresh,
    observations,
    priors_of_iterates,
    source,
)


def run(config: Config, rows: Rows, data_dir: Path, chosen: Chosen | None = None) -> None:
    """All runs that are not among the rows yet."""
    left = source(data_dir, config.seeds)
    kinds = (TUNED_EM, TUNED_PPO)
    common = chosen.shared if chosen is not None else {kind: shared(config, rows, kind) for kind in kinds}
    for target in config.targets:
        grids = {method: grid_of(config, method) for method in RUN}
        if chosen is not None:
            grids = {method: (chosen.settings[target, method],) for method in RUN}
        for program in PROGRAMS:
            methods = [method for method in program if not rows.have(target=target, method=method)]
            if methods:
                kind = TUNED_PPO if methods[0].startswith("PPO") else TUNED_EM
                rows.add(_rows(config, left, target, methods, [common[kind]], grids))
            for method in methods:
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
            made = _rows(config, None, SOURCE_TASK, [SCRATCH if is_em else PPO_SCRATCH], common)
            rows.add([{**row, "method": kind} for row in made])
            print(f"{kind}, {passes} passes: done", flush=True)
    areas: dict[Shared, list[float]] = {}
    for row in rows.rows:
        if row["target"] == SOURCE_TASK and row["method"] == kind:
            areas.setdefault(Shared(*row["shared"]), []).append(row["area"])
    return max(areas, key=lambda each: float(np.mean(areas[each])))


def _rows(
    config: Config,
    left: Source | None,
    target: str,
    methods: Sequence[str],
    common: Sequence[Shared],
    grids: Mapping[str, Sequence[float]] | None = None,
) -> list[dict[str, Any]]:
    """Methods on one target: all seeds, settings and shared ones, of equal passes, in one program."""
    parts = [starts(config, left, method, common, (grids or {}).get(method, (0.0,))) for method in methods]
    members = [member for _, each in parts for member in each]
    settings = jax.tree.map(lambda *xs: jnp.concatenate(xs), *(each for each, _ in parts))
    make = functools.partial(inference, config, target, methods[0], common[0].passes)
    made = learned(config, target, settings, make)
    record = provenance(command_line())
    return [
        {
            **record,
            "target": target,
            "method": member.method,
            "seed": member.seed,
            "setting": member.setting,
            "shared": list(member.shared),
            "curve": [round(float(x), 2) for x in one],
            "area": area(one),
            "failed": int(failed),
            "seconds": made.seconds,
            "compile_seconds": made.compile_seconds,
        }
        for member, one, failed in zip(members, made.curves, made.failed, strict=True)
    ]


class Learned(NamedTuple):
    """Attributes:
    curves: (M, rollouts + 1), returns after each rollout.
    failed: (M,), the rollout in which a member became non-finite, -1 for none.
    history: of all members.
    seconds: of one member.
    compile_seconds: of all.
    """

    curves: np.ndarray
    failed: np.ndarray
    history: Mapping[str, np.ndarray]
    seconds: float
    compile_seconds: float


def learned(config: Config, target: str, settings: dict[str, Any], make: Callable[[Any], btl.Inference]) -> Learned:
    """All members in one program."""
    made = rollouts(config, target, VALUE, 1.0, optax.sgd(0.0))
    curve: list[np.ndarray] = [evaluated(btl.Point(settings["policy"]), target, config.episodes)]

    def look(progress: Any) -> bool:
        curve.append(evaluated(progress.posterior(), target, config.episodes))
        return False

    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(20), seed))(settings["seed"])
    began = time.perf_counter()
    with warnings.catch_warnings():
        # Returns of a pole that stands are cut at 500 steps: that is the task.
        warnings.simplefilter("ignore", UserWarning)
        many = btl.fit_many(
            keys,
            make,
            settings,
            settings["policy"],
            made.data,
            steps=config.rollouts,
            chunk_size=1,
            callbacks=[look],
            params_axis=0,
            vectorize=jax.vmap,
            progress=False,
        )
    seconds = (time.perf_counter() - began - many.compile_seconds) / len(keys)
    return Learned(np.stack(curve, 1), np.asarray(many.failed), many.history, seconds, many.compile_seconds)


def area(curve: np.ndarray) -> float:
    """The mean return over the steps of a run, by the trapezoidal rule."""
    return float(np.trapezoid(curve) / (len(curve) - 1))


def starts(
    config: Config, left: Source | None, method: str, common: Sequence[Shared], grid: Sequence[float] = (0.0,)
) -> tuple[dict[str, Any], list[Member]]:
    """What differs between members, with a leading axis, and who they are."""
    members = [Member(method, seed, number, each) for each in common for number in grid for seed in range(config.seeds)]
    fresh_policy, fresh_critic = fresh(config.seeds)
    settings: dict[str, Any] = {"policy": fresh_policy, "critic": fresh_critic}
    if left is not None and method not in (SCRATCH, PPO_SCRATCH):
        settings["policy"] = left.policy
        settings["critic"] = fresh_critic if method in (SOURCE, PPO_SOURCE) else left.critic
    if left is not None and method == LEARNED:
        settings["prior"] = priors_of_iterates(left.iterates)
    if method == KL:
        settings["observations"] = observations(settings["policy"])
    seeds = np.array([member.seed for member in members])
    settings = jax.tree.map(lambda x: x[seeds], settings)
    numbers = {
        "seed": seeds,
        "number": [member.setting for member in members],
        "temperature": [member.shared.temperature for member in members],
        "rate": [member.shared.rate for member in members],
    }
    return settings | {name: jnp.asarray(each) for name, each in numbers.items()}, members


def rollouts(
    config: Config,
    target: str,
    value: btl.Net,
    temperature: Any,
    optimizer: optax.GradientTransformation,
    other_critics: Sequence[Any] = (),
) -> btl.control.Rollouts:
    """Experience of the target with a critic at ``value``, or where else the first rollout finds it likelier."""
    joint = btl.LogJoint(value, btl.likelihoods.normal(config.noise), None)
    critic = btl.control.critic(value, btl.infer.map_estimate(joint, optimizer), starts=other_critics)
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


def _probe(config: Config, left: Source, target: str) -> list[dict[str, Any]]:
    """What the source's policy and a fresh one earn for each episode that ends, before anything is learned.

    Both play ``PROBE`` steps in all environments, which together cost one of the rollouts. Their learning curves come
    from the rows of L2-SP and from scratch, begun one rollout later."""
    made = btl.control.rollouts(POLICY, environment(target), config.num_envs, PROBE, config.discount)
    rows, record, began = [], provenance(command_line()), time.perf_counter()
    for seed in range(config.seeds):
        starts = {L2_SP: left.policy, SCRATCH: fresh(config.seeds)[0]}
        starts = jax.tree.map(lambda x, s=seed: x[s], starts)
        earned = btl.control.first_returns(jax.random.fold_in(jax.random.key(50), seed), made, starts)
        rows.append(
            {
                **record,
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
