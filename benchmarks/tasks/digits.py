"""Handwritten digits: a source that helps one target and misleads another.

Source: the first half of scikit-learn's 8x8 digits, all ten classes. Targets: the second half seen through a
low-resolution scanner, where the source helps, and with inverted contrast, where it misleads. Few labels, a fixed
validation set for every choice of hyperparameter, a test set that is touched once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks._tuning import nll, predict, scored
from benchmarks.tasks.digits_methods import (
    FROM_SCRATCH,
    HEAD_VI,
    INITIALISATION_ONLY,
    L2_SP,
    Config,
    methods,
    on_test,
    run_method,
)
from benchmarks.tasks.digits_source import (
    SIZES,
    Source,
    Target,
    features,
    head_net,
    targets,
    train_source,
    training_set,
)

SOURCE_AS_IS, HEAD_NUTS = "source as it is", "head, NUTS"
TRANSFER, BY_LAYER = "transfer", "transfer, scales of layers"
NUTS_CHAINS = 2
# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("layers_at",)


def run_nuts(
    tasks: Sequence[Target], source: Source, num_labels: int, config: Config, tuned: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Draws from the head's posterior itself, under the prior that validation chose for mean-field VI of the head."""
    net, rows = head_net(source), []
    for task in [features(task, source) for task in tasks]:
        for seed in range(config.seeds):
            (chosen,) = [row for row in tuned if (row["target"], row["seed"]) == (task.name, seed)]
            train = training_set(task, num_labels, seed)
            prior = btl.sources.point(net.params, chosen["setting"]["scale"])
            joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=train.num_examples)
            began = time.perf_counter()
            chains = btl.bridges.nuts(
                jax.random.key(seed),
                joint,
                net.params,
                train,
                num_warmup=config.nuts_steps,
                num_samples=config.nuts_steps,
                num_chains=NUTS_CHAINS,
                progress=False,
            )
            seconds = time.perf_counter() - began
            num_draws, apart = NUTS_CHAINS * config.nuts_steps, btl.diagnostics.by_chain(chains)
            validation = task.pool.take(task.split.validation)
            rows.append(
                {
                    "target": task.name,
                    "seed": seed,
                    **on_test(joint, chains, task, num_draws),
                    "setting": {"scale": chosen["setting"]["scale"]},
                    "validation_nll": float(nll(joint, chains, validation, num_draws)),
                    "settings_tried": 1,
                    "frozen_members": 0,
                    "r_hat": max(float(np.max(x)) for x in jax.tree.leaves(btl.diagnostics.r_hat(apart))),
                    "smallest_ess": min(float(np.min(x)) for x in jax.tree.leaves(btl.diagnostics.ess(apart))),
                    "divergences": int(chains.stats["diverging"].sum()),
                    "seconds": seconds,
                    # The first run's seconds hold it.
                    "compile_seconds": 0.0,
                }
            )
    return rows


def run_transfer(
    tasks: Sequence[Target], source: Source, num_labels: int, config: Config, progress: bool, by_layer: bool = False
) -> list[dict[str, Any]]:
    """All in one call, which sees no validation data: they are scored here for comparison alone."""
    rows = []
    for task in tasks:
        for seed in range(config.seeds):
            net = btl.nets.mlp(jax.random.fold_in(jax.random.key(4), seed), SIZES)
            result = btl.transfer(
                jax.random.key(seed),
                net,
                source.net,
                training_set(task, num_labels, seed),
                btl.likelihoods.categorical(),
                by_layer=by_layer,
                progress=progress,
            )
            validation, test = (task.pool.take(part) for part in (task.split.validation, task.split.test))
            single = predict(result.joint, result.single, test.inputs)
            rows.append(
                {
                    "target": task.name,
                    "seed": seed,
                    **scored(result.predict(test.inputs), test.targets),
                    "setting": {f"trust in {row.name}": row.weight for row in result.trust},
                    "validation_nll": float(btl.metrics.nll(result.predict(validation.inputs), validation.targets)),
                    "settings_tried": sum(len(row.weights) for row in result.trust),
                    "frozen_members": 0,
                    "single_nll": float(btl.metrics.nll(single, test.targets)),
                    "verdict": None if result.verdict is None else result.verdict.outcome,
                    "gradient_steps": result.steps,
                    "seconds": result.seconds,
                    # The first run's seconds hold it.
                    "compile_seconds": 0.0,
                }
            )
    return rows


def run_source(tasks: Sequence[Target], source: Source, config: Config) -> list[dict[str, Any]]:
    """The source network as it is; the same row for every seed."""
    joint = btl.LogJoint(source.net, btl.likelihoods.categorical(), None, num_data=1)
    point = btl.Point(source.net.params)
    none = {"setting": {}, "settings_tried": 0, "frozen_members": 0, "seconds": 0.0, "compile_seconds": 0.0}
    rows = []
    for task in tasks:
        validation = float(nll(joint, point, task.pool.take(task.split.validation)))
        row = {"target": task.name, **on_test(joint, point, task), **none, "validation_nll": validation}
        rows.extend({**row, "seed": seed} for seed in range(config.seeds))
    return rows


def all_methods() -> tuple[str, ...]:
    """The names of all methods, in the order of tables and figures."""
    return (
        TRANSFER,
        BY_LAYER,
        FROM_SCRATCH,
        SOURCE_AS_IS,
        INITIALISATION_ONLY,
        "zero-mean prior",
        L2_SP,
        "learned low rank",
        "L2-SP, mean-field VI",
        HEAD_VI,
        HEAD_NUTS,
    )


def run(config: Config, rows: Rows, progress: bool = True) -> None:
    """Run what is missing in ``rows``: a cell is one method at one number of labels, for all targets and seeds."""
    source, tasks = train_source(progress), targets()
    origin = provenance(command_line())
    trained = {method.name: method for method in methods(config, source)}
    drawn = {HEAD_NUTS, *(name for name, method in trained.items() if method.num_draws > 1)}
    cells = [(n, name) for n in config.num_labels for name in [SOURCE_AS_IS, TRANSFER, BY_LAYER, *trained, HEAD_NUTS]]
    cells = [(n, name) for n, name in cells if name not in drawn or n in config.sampled_at]
    cells = [(n, name) for n, name in cells if name != BY_LAYER or n in config.layers_at]
    for number, (n, name) in enumerate(cells, 1):
        print(f"[{number}/{len(cells)}] {n} labels per class, {name}", flush=True)
        if rows.have(method=name, n=n):
            continue
        if name == SOURCE_AS_IS:
            scored_rows = run_source(tasks, source, config)
        elif name in (TRANSFER, BY_LAYER):
            scored_rows = run_transfer(tasks, source, n, config, progress, by_layer=name == BY_LAYER)
        elif name == HEAD_NUTS:
            tuned = [row for row in rows.rows if (row["method"], row["n"]) == (HEAD_VI, n)]
            scored_rows = run_nuts(tasks, source, n, config, tuned)
        else:
            scored_rows = run_method(trained[name], tasks, source, n, config, progress)
        tempers = {"kappa": 1.0, "temperature": 1.0, "source_seconds": source.seconds}
        rows.add([{"task": "digits", "n": n, "method": name, **row, **tempers, **origin} for row in scored_rows])
