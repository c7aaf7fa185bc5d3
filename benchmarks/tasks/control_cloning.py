"""Cloning an expert of the target from 30 of its decisions: the source as a prior, and how far to trust it."""

from __future__ import annotations

import functools
import time
import warnings
from typing import Any

import jax
import numpy as np
import optax

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks.tasks import control as task
from benchmarks.tasks import control_config as names

NUM_DECISIONS, NUM_TEST, STEPS, RATE = 30, 2000, 300, 0.01
CLONE_SCRATCH, CLONE_SOURCE, CLONE_TRANSFER = "cloned from scratch", "cloned, source flat", "cloned, btl.transfer"
CLONES = (CLONE_SCRATCH, CLONE_SOURCE, CLONE_TRANSFER)


def run(config: names.Config, rows: Rows, left: task.Source, shared: names.Shared) -> None:
    """All clones that are not among the rows yet. The expert of a seed began at another run of the source than the
    prior of that seed has."""
    for target in config.targets:
        if rows.have(target=target, method=CLONE_TRANSFER):
            continue
        learned = experts(config, left, target, names.WITH_CRITIC, shared)
        for seed in range(config.seeds):
            expert = jax.tree.map(lambda x, s=seed: x[(s + 1) % config.seeds], learned)
            rows.add(_clones(config, left, target, seed, expert))
        print(f"{target}, clones: done", flush=True)


def experts(config: names.Config, left: task.Source, target: str, method: str, shared: names.Shared) -> Any:
    """Policies that learned the target itself, with a leading axis of seeds."""
    settings, _ = task.starts(config, left, method, [shared])
    made = task.rollouts(config, target, task.VALUE, 1.0, optax.sgd(0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        many = btl.fit_many(
            jax.random.split(jax.random.key(60), config.seeds),
            functools.partial(task.inference, config, target, method, shared.passes),
            settings,
            settings["policy"],
            made.data,
            steps=config.rollouts,
            params_axis=0,
            vectorize=jax.vmap,
            progress=False,
        )
    return many.params


def _clones(config: names.Config, left: task.Source, target: str, seed: int, expert: Any) -> list[dict[str, Any]]:
    env, likelihood = task.environment(target), btl.likelihoods.categorical()
    net = btl.Net(expert, (), task.POLICY.apply)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        shown = btl.control.demonstrations(jax.random.key(70 + seed), net, env, 16)
    order = np.random.default_rng(seed).permutation(shown.num_examples)
    train = btl.data.arrays(*jax.tree.map(lambda x: x[order[:NUM_DECISIONS]], (shown.inputs, shown.targets)))
    held = order[NUM_DECISIONS : NUM_DECISIONS + NUM_TEST]
    test = jax.tree.map(lambda x: x[held], btl.Batch(shown.inputs, shown.targets))
    policy = jax.tree.map(lambda x: x[seed], left.policy)
    scratch = jax.tree.map(lambda x: x[seed], task.fresh(config.seeds)[0])
    rows = []
    for method in CLONES:
        began = time.perf_counter()
        joint: Any = btl.LogJoint(task.POLICY, likelihood, None)
        if method == CLONE_TRANSFER:
            start = btl.Net(scratch, (), task.POLICY.apply)
            posterior: Any = btl.transfer(jax.random.key(80 + seed), start, policy, train, likelihood).posterior
        else:
            params = policy if method == CLONE_SOURCE else scratch
            inference = btl.infer.map_estimate(joint, optax.adam(RATE))
            options = {"steps": STEPS, "batch_size": NUM_DECISIONS, "progress": False}
            posterior = btl.fit(jax.random.key(90 + seed), inference, params, train, **options).posterior
        seconds = time.perf_counter() - began
        num_draws = 1 if isinstance(posterior, btl.Point) else 16
        predict = btl.predict.monte_carlo(jax.random.key(0), joint, posterior, num_samples=num_draws)
        probabilities = np.asarray(predict(test.inputs).probs, np.float64)
        chosen = probabilities[np.arange(len(held)), np.asarray(test.targets)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            earned = btl.control.returns(
                jax.random.key(41), posterior, task.POLICY, env, 32 // num_draws, num_draws=num_draws
            )
        rows.append(
            {
                **provenance(command_line()),
                "target": target,
                "method": method,
                "seed": seed,
                "setting": 0.0,
                "nll": float(-np.mean(np.log(np.maximum(chosen, 1e-14)))),
                "return": earned.mean,
                "test_decisions": len(held),
                "seconds": seconds,
            }
        )
    return rows
