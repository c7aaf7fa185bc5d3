"""Yesterday's posterior as today's prior: each rollout has a prior that holds actions near the last ones.

The first prior is the source's policy as it stands. After n rollouts the posterior has seen the decisions of n of them,
so the next prior counts as many, a share c of each: ``-c n N KL(last policy || policy)``, N being the decisions of one
rollout. At first nothing holds the policy back where the source is wrong. Later, where advantages are little more than
the noise of the critic, a single rollout moves it less and less.

The critic transfers too, if it fits: the first rollout decides between the source's and a new one, by the likelihood of
its rewards, before anything is learned. That costs no step of the environment.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks._tables import cell, verdict
from benchmarks.tasks import control as task
from benchmarks.tasks import control_config as names
from benchmarks.tasks.control_config import SEQUENTIAL
from benchmarks.tasks.control_report import curves
from benchmarks.tasks.control_worlds import POLICY, VALUE, evaluated, fresh, source

SEEDS_PER_RUN = 2
SCRATCH, SOURCE = "from scratch", "source as initial policy"
CRITIC_FIRST = "source, critic first"
SCRATCH_SEQUENTIAL = "from scratch, critic first, last posterior as prior"
HALVED = "L2-SP, scale by returns"
PLAIN, FIRST = (SCRATCH, SOURCE), (CRITIC_FIRST, SCRATCH_SEQUENTIAL, SEQUENTIAL)
METHODS = (*PLAIN, *FIRST, HALVED)
SHARES = (0.05, 0.1)  # of a rollout's decisions that the last posterior counts for each rollout before
CRITIC_RATES = (0.003, 0.01)
LOOKED_AT = 256  # observations of a rollout at which two policies are compared

TEXT = """\
### The last posterior as the next prior, {seeds} seeds

Two seeds for each of the {runs} runs of the source. "Last posterior as prior": the prior of a rollout holds actions
near those of the policy before it, and counts c decisions for each one so far. "Critic first": the critic is fitted to
a rollout before it judges its decisions, and starts, of the source's and a new one, at the one that makes the rewards
of the first rollout likelier; the last column but one has the share of the source's. "Scale by returns": successive
halving over scales {scales}, whose rollouts all count. The setting is c and the rate of the critic, the pair of {pairs}
with the largest area on the other targets; methods without a prior choose among the rates alone.

| target | method | setting | area | minus {source} | minus {scratch} | at 5k | at 20k | source's critic | seconds |
|---|---|---|---|---|---|---|---|---|---|"""


def settings() -> dict[str, Any]:
    """What must be equal for earlier rows to be taken up again, beside those of the task."""
    return {"seeds_per_run": SEEDS_PER_RUN, "shares": SHARES, "critic_rates": CRITIC_RATES}


def run(
    config: names.Config,
    rows: Rows,
    data_dir: Path,
    shared: names.Shared,
    chosen: Mapping[tuple[str, str], tuple[float, float]] | None = None,
) -> None:
    """All runs that are not among the rows yet. With ``chosen``, share and rate of each target and method, no others,
    and no scale by returns."""
    for target in config.targets:
        for methods in (PLAIN, FIRST):
            if not rows.have(target=target, method=methods[-1]):
                grids = {method: grid_of(method) if chosen is None else (chosen[target, method],) for method in methods}
                rows.add(_rows(config, data_dir, target, grids, shared))
    for target in config.targets:
        if chosen is None and not rows.have(target=target, method=HALVED):
            rows.add(_halved(config, data_dir, target, shared))


def grid_of(method: str) -> tuple[tuple[float, float], ...]:
    """Shares and rates of a method."""
    shares = SHARES if method in (SCRATCH_SEQUENTIAL, SEQUENTIAL) else (0.0,)
    return tuple((share, rate) for share in shares for rate in CRITIC_RATES)


def _starts(config: names.Config, data_dir: Path, method: str) -> dict[str, Any]:
    """What each seed begins with, with a leading axis of seeds: policy, critic, and where else the critic may start."""
    num = config.seeds * SEEDS_PER_RUN
    left = jax.tree.map(lambda x: x[np.arange(num) % config.seeds], source(data_dir, config.seeds))
    policy, critic = fresh(num)
    if method in (SCRATCH, SCRATCH_SEQUENTIAL):
        return {"policy": policy, "critic": critic, "other": critic, "seed": jnp.arange(num)}
    return {"policy": left.policy, "critic": critic, "other": left.critic, "seed": jnp.arange(num)}


def _rows(
    config: names.Config,
    data_dir: Path,
    target: str,
    grids: Mapping[str, Sequence[tuple[float, float]]],
    shared: names.Shared,
) -> list[dict[str, Any]]:
    """Methods on one target, all seeds and settings in one program."""
    members: list[tuple[str, float, float, int]] = []
    parts = []
    for method, grid in grids.items():
        begin = _starts(config, data_dir, method)
        for share, rate in grid:
            num = len(begin["seed"])
            members += [(method, share, rate, seed) for seed in range(num)]
            parts.append(begin | {"share": jnp.full(num, share), "rate": jnp.full(num, rate)})
    first = SEQUENTIAL in grids
    settings = jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
    make = functools.partial(_inference, config, target, first, shared)
    learned = task.learned(config, target, settings, make)
    starts = learned.history["critic_start"][:, 0] if first else np.zeros(len(members))
    rows, record = [], provenance(command_line())
    for (method, share, rate, seed), curve, start, failure in zip(
        members, learned.curves, starts, learned.failed, strict=True
    ):
        rows.append(
            {
                **record,
                "target": target,
                "method": method,
                "seed": seed,
                "setting": f"{share:g}, {rate:g}",
                "curve": [round(float(x), 2) for x in curve],
                "area": task.area(curve),
                "source_critic": bool(start == 1) if first and method != SCRATCH_SEQUENTIAL else None,
                "failed": int(failure),
                "seconds": learned.seconds,
                "compile_seconds": learned.compile_seconds,
            }
        )
    print(f"{target}: {', '.join(grids)}: done", flush=True)
    return rows


def _inference(config: names.Config, target: str, first: bool, shared: names.Shared, setting: Any) -> btl.Inference:
    value = btl.Net(setting["critic"], (), VALUE.apply)
    others = [setting["other"]] if first else []
    made = task.rollouts(config, target, value, shared.temperature, optax.adam(setting["rate"]), others)
    joint = btl.LogJoint(POLICY, btl.likelihoods.categorical(), None)
    inner = btl.infer.map_estimate(joint, optax.adam(shared.rate))

    def next_prior(posterior: Any, decisions: btl.Batch, count: Any) -> Any:
        every = max(1, made.num_decisions // LOOKED_AT)
        strength = setting["share"] * count * made.num_decisions
        return btl.control.kl_prior(POLICY, posterior.params, decisions.inputs[::every], strength)

    options = {"next_prior": next_prior, "critic_first": True} if first else {}
    return btl.control.on_policy(inner, made, passes=shared.passes, minibatches=4, **options)


def _l2_sp(config: names.Config, target: str, shared: names.Shared, setting: Any) -> btl.Inference:
    value = btl.Net(setting["critic"], (), VALUE.apply)
    made = task.rollouts(config, target, value, shared.temperature, optax.adam(shared.rate))
    prior = btl.gaussians.isotropic(setting["policy"], setting["scale"])
    joint = btl.LogJoint(POLICY, btl.likelihoods.categorical(), prior)
    inner = btl.infer.map_estimate(joint, optax.adam(shared.rate))
    return btl.control.on_policy(inner, made, passes=shared.passes, minibatches=4)


def _halved(config: names.Config, data_dir: Path, target: str, shared: names.Shared) -> list[dict[str, Any]]:
    """L2-SP whose scale is chosen on the way, with a new critic; all rollouts are on the curve."""
    begin = _starts(config, data_dir, HALVED)
    make = functools.partial(_l2_sp, config, target, shared)
    made = task.rollouts(config, target, VALUE, shared.temperature, optax.sgd(0.0))
    rows = []
    for seed in range(len(begin["seed"])):
        policy, critic = (jax.tree.map(lambda x, s=seed: x[s], begin[name]) for name in ("policy", "critic"))
        settings = jax.tree.map(lambda x: jnp.stack([x] * len(config.scales)), {"policy": policy, "critic": critic})
        settings["scale"] = jnp.array(config.scales)
        points: list[tuple[int, Any]] = [(0, policy)]

        def look(done: int, posterior: Any, points: list[tuple[int, Any]] = points) -> None:
            points.append((done, posterior.params))

        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            tuned = btl.control.tune_by_returns(
                jax.random.fold_in(jax.random.key(20), seed),
                make,
                settings,
                policy,
                made,
                num_rollouts=config.rollouts,
                look=look,
            )
        seconds = time.perf_counter() - began
        policies = jax.tree.map(lambda *xs: jnp.stack(xs), *(params for _, params in points))
        earned = evaluated(btl.Point(policies), target, config.episodes)
        curve = np.interp(np.arange(config.rollouts + 1), [done for done, _ in points], earned)
        rows.append(
            {
                **provenance(command_line()),
                "target": target,
                "method": HALVED,
                "seed": seed,
                "setting": "by returns",
                "chosen": config.scales[tuned.index],
                "curve": [round(float(x), 2) for x in curve],
                "area": task.area(curve),
                "source_critic": None,
                "seconds": seconds,
            }
        )
    return rows


def report(config: names.Config, rows: Rows) -> str:
    """Table and verdicts in Markdown."""
    num = config.seeds * SEEDS_PER_RUN
    pairs = len(SHARES) * len(CRITIC_RATES)
    scales = ", ".join(f"{scale:g}" for scale in config.scales)
    lines = [TEXT.format(seeds=num, runs=config.seeds, scales=scales, pairs=pairs, source=SOURCE, scratch=SCRATCH)]
    verdicts = []
    per_rollout = config.num_envs * config.num_steps / 1000
    for target in config.targets:
        present = [method for method in METHODS if rows.have(target=target, method=method)]
        every = {method: curves(config, rows, target, method) for method in present}
        areas = {method: np.array([task.area(curve) for curve in each]) for method, (each, _) in every.items()}
        for method, (each, setting) in every.items():
            own = [row for row in rows.rows if (row["target"], row["method"]) == (target, method)]
            taken = [row["source_critic"] for row in own if row["source_critic"] is not None]
            share = f"{np.mean(taken):.2f}" if taken else ""
            others = [areas[method] - areas[other] for other in (SOURCE, SCRATCH)]
            paired = [cell(other, 0, sign=True) if np.any(other) else "" for other in others]
            at = [each[:, min(round(n / per_rollout), each.shape[1] - 1)] for n in (5, 20)]
            cells = [target, method, setting, cell(areas[method], 0), *paired, *(cell(x, 0) for x in at), share]
            lines.append(f"| {' | '.join(cells)} | {np.mean([row['seconds'] for row in own]):.1f} |")
        for other in (SOURCE, SCRATCH):
            words = verdict(areas[SEQUENTIAL] - areas[other], "area", 0, larger_is_better=True)
            verdicts.append(f"* {target}: {SEQUENTIAL}, minus {other}: {words}.")
    return "\n".join([*lines, "", *verdicts]) + "\n"
