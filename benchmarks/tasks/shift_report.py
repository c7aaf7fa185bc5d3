"""What priors and posteriors gave where the pictures degrade: a table for each score, and verdicts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import cell
from benchmarks.tasks.shift import CORRUPTIONS, INITIALISATION, METHODS, Config

CAPTION = """\
Test scores over {seeds} seeds (which labels), mean ± standard error, on {test} test pictures as they are, and on the
same pictures corrupted ({corruptions} together) at each severity. A frozen ResNet-20, published for CIFAR-10, and its
last layer learned from n labelled JPEG pictures of the same classes, none of them corrupted. Priors as in the table
of few labels; the scale of a prior, or the learning rate where there is none, is the best of {settings} by the NLL of
a fifth of the n labels, then all n are fitted: {steps} steps a run. "Posterior" is the dense Laplace posterior around
the mode, linearised; it costs no further gradient step. No corrupted picture takes part in any choice."""
PUBLISHED = """\
The shape of the comparison is that of Shwartz-Ziv et al. 2022, "Pre-Train Your Loss: Easy Bayesian Transfer Learning
with Informative Priors" (NeurIPS), who learn whole ResNets from ImageNet; their numbers are for other networks and
data, so that none is printed here."""
TITLES = {"nll": "NLL", "accuracy": "Accuracy", "ece": "Expected calibration error"}


def values(rows: Rows, n: int, method: str, dataset: str, metric: str) -> np.ndarray:
    """One score of all seeds, in order."""
    own = [row for row in rows.rows if row["n"] == n and row["method"] == method]
    return np.array([row["scores"][dataset][metric] for row in sorted(own, key=lambda row: row["seed"])])


def report(config: Config, rows: Rows) -> str:
    """Tables in Markdown."""
    names = ", ".join(name.replace("_", " ") for name in CORRUPTIONS)
    counts = {"test": 10 * config.per_class[2], "settings": len(config.scales), "steps": config.steps}
    parts = [CAPTION.format(seeds=config.seeds, corruptions=names, **counts)]
    datasets = list(rows.rows[0]["scores"])
    for n in config.num_labels:
        for metric, title in TITLES.items():
            parts += [f"### {title}, {n} labels", _table(rows, n, datasets, metric)]
        if config.seeds > 1:
            parts += [
                f"### Is it real? NLL against {INITIALISATION}, {n} labels",
                "Paired by seed, t tests with Holm's correction over all lines, at 95 % (`metrics.compare`).",
                _compared(config, rows, n, datasets),
            ]
    return "\n\n".join([*parts, PUBLISHED]) + "\n"


def _table(rows: Rows, n: int, datasets: Sequence[str], metric: str) -> str:
    heads = [name.removeprefix("shift/").replace("-", " ") for name in datasets]
    lines = ["| method | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for method in METHODS:
        cells = [cell(values(rows, n, method, dataset, metric)) for dataset in datasets]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _compared(config: Config, rows: Rows, n: int, datasets: Sequence[str]) -> str:
    tables = {}
    for method in METHODS:
        columns = [values(rows, n, method, dataset, "nll") for dataset in datasets]
        tables[method] = [
            btl.metrics.ScoreTable(
                tuple(
                    btl.metrics.Score(name, "nll", float(column[seed]), float("nan"))
                    for name, column in zip(datasets, columns, strict=True)
                )
            )
            for seed in range(config.seeds)
        ]
    with warnings.catch_warnings():
        # Fewer than five seeds: those who ask for them know it.
        warnings.simplefilter("ignore", RuntimeWarning)
        return btl.metrics.compare(tables, baseline=INITIALISATION, metrics=("nll",)).to_markdown()
