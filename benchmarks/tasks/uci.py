"""The field's table of small regressions: the protocol of Hernandez-Lobato and Adams (2015) on its standard splits.

One hidden layer of 50 ReLU units, inputs and targets scaled by the training part, test log-likelihood and RMSE in the
original unit of the targets. Prior scales and noise are chosen on training data alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks.tasks import uci_methods as methods
from benchmarks.tasks.uci_data import DATASETS, SPLITS, Split, splits
from benchmarks.tasks.uci_methods import Outcome


class Config(NamedTuple):
    """What is run.

    Attributes:
        datasets: their names.
        seeds: number of splits, each with a seed of its own.
        scales: standard deviations of the prior among which held-out rows choose.
        steps: gradient steps of one run; a method has one run for each scale and one more.
        batch_size: examples per step.
    """

    datasets: tuple[str, ...] = DATASETS
    seeds: int = SPLITS
    scales: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    steps: int = 2000
    batch_size: int = 100


# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("datasets", "seeds")


def demo(config: Config) -> Config:
    """A version of a few minutes: one data set, fewer settings and steps."""
    return config._replace(datasets=("yacht",), scales=(0.2, 0.8), steps=400)


def checked(config: Config) -> Config:
    """The configuration, when it can be run.

    Raises:
        SystemExit: an unknown data set, or another number of splits than there are.
    """
    if unknown := sorted(set(config.datasets) - set(DATASETS)):
        raise SystemExit(f"--datasets has {', '.join(unknown)}; there are {', '.join(DATASETS)}")
    if not 1 <= config.seeds <= SPLITS:
        raise SystemExit(f"--seeds is {config.seeds}; there are {SPLITS} splits, give 1 to {SPLITS}")
    return config


def searches(config: Config) -> list[tuple[tuple[str, ...], Callable[[list[Split], list[int]], list[list[Outcome]]]]]:
    """Names of methods that share one search, and the search: splits, their numbers -> outcomes of each."""
    options = {"steps": config.steps, "batch_size": config.batch_size}
    by_evidence = partial(methods.by_evidence, rounds=len(config.scales) + 1, **options)
    by_validation = [
        (family.names, partial(methods.by_validation, family, scales=config.scales, **options))
        for family in methods.FAMILIES
    ]
    return [*by_validation, (methods.EVIDENCE_NAMES, by_evidence)]


def run(config: Config, rows: Rows, data_dir: Path) -> None:
    """Run what is missing in ``rows``: one search on one data set, for all splits side by side."""
    origin = provenance(command_line())
    for dataset in config.datasets:
        for names, search in searches(config):
            numbers = [n for n in range(config.seeds) if not rows.have(dataset=dataset, seed=n, method=names[0])]
            if not numbers:
                continue
            print(f"{dataset}: {', '.join(names)}", flush=True)
            each = splits(dataset, data_dir, numbers)
            for number, split, outcomes in zip(numbers, each, search(each, numbers), strict=True):
                made = [row(split, outcome) for outcome in outcomes]
                rows.add([{"task": "uci", "dataset": dataset, "seed": number, **one, **origin} for one in made])
            # Each search compiles some hundreds of programs, and a process may have some 65,000 memory maps.
            jax.clear_caches()


def row(split: Split, outcome: Outcome) -> dict[str, Any]:
    """Scores on the test part, in the original unit of the targets."""
    scaled = btl.metrics.report(outcome.predict(split.test.inputs), split.test.targets)
    return {
        "method": outcome.method,
        "nll": scaled["nll"] + float(np.log(split.unit)),
        "rmse": scaled["rmse"] * split.unit,
        "crps": scaled["crps"] * split.unit,
        "interval_coverage": scaled["interval_coverage"],
        "setting": outcome.setting,
        "validation_nll": outcome.validation_nll,
        "gradient_steps": outcome.gradient_steps,
        "num_train": len(split.train.targets),
        "num_test": len(split.test.targets),
        "seconds": outcome.seconds,
        "kappa": 1.0,
        "temperature": 1.0,
        "state_policy": "none",
    }
