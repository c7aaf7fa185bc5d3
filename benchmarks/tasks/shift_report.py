"""What priors and posteriors gave where the pictures degrade: a table for each score, and verdicts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import cell, in_words, lowest
from benchmarks.tasks.shift import CORRUPTIONS, INITIALISATION, METHODS, POSTERIOR, Config

CAPTION = """\
Test scores over {seeds} seeds (which labels), mean ± standard error, on {test} test pictures as they are, and on the
same pictures corrupted ({corruptions} together) at each severity. A frozen ResNet-20, published for CIFAR-10, and its
last layer learned from n labelled JPEG pictures of the same classes, none of them corrupted. Priors as in the table
of few labels; the scale of a prior, or the learning rate where there is none, is the best of {settings} by the NLL of
a fifth of the n labels, then all n are fitted: {steps} steps a run. "Posterior" is the dense Laplace posterior around
the mode, linearised; it costs no further gradient step. No corrupted picture takes part in any choice."""
PUBLISHED = """\
The shape of the comparison is that of Shwartz-Ziv et al. 2022, "Pre-Train Your Loss: Easy Bayesian Transfer Learning
with Informative Priors" (NeurIPS), who learn whole ResNets from ImageNet; what they reach on CIFAR-10 stands in the
table of few labels, as a citation."""
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
        methods = [m for m in METHODS if len(values(rows, n, m, datasets[0], "nll")) == config.seeds]
        if missing := [m for m in METHODS if m not in methods]:
            parts.append(f"Not run to the end yet, {n} labels: {', '.join(missing)}.")
        for metric, title in TITLES.items():
            parts += [f"### {title}, {n} labels", _table(rows, n, methods, datasets, metric)]
        if config.seeds > 1:
            parts += _is_it_real(rows, n, methods, datasets)
    return "\n\n".join([*parts, PUBLISHED]) + "\n"


def _is_it_real(rows: Rows, n: int, methods: Sequence[str], datasets: Sequence[str]) -> list[str]:
    """What won and what lost in words, then the comparisons behind them."""
    scores = {method: np.stack([values(rows, n, method, name, "nll") for name in datasets], 1) for method in methods}
    started = _compared(scores, INITIALISATION, datasets)
    modes = [method for method in methods if method + POSTERIOR in methods]
    # As scores of their own, held against 0: the difference of two rows that share everything but the average.
    apart = {method: scores[method + POSTERIOR] - scores[method] for method in modes}
    averaged = _compared(apart | {"its mode": np.zeros_like(apart[modes[0]])}, "its mode", datasets)
    heads = {name.removeprefix("shift/").replace("-", " "): column for column, name in enumerate(datasets)}
    means = {head: {m: float(scores[m][:, column].mean()) for m in methods} for head, column in heads.items()}
    words = [
        *lowest(means),
        *in_words(started, f"{{}} than {INITIALISATION}"),
        *in_words(averaged, "posterior {} than its mode"),
    ]
    tests = "Paired by seed, t tests with Holm's correction over all lines, at 95 % (`metrics.compare`)."
    return [
        f"### In words, {n} labels",
        "\n".join(words),
        f"### Is it real? NLL against {INITIALISATION}, {n} labels",
        tests,
        started.to_markdown(),
        f"### Does the average pay? NLL of each posterior against its mode, {n} labels",
        tests,
        averaged.to_markdown(),
    ]


def _table(rows: Rows, n: int, methods: Sequence[str], datasets: Sequence[str], metric: str) -> str:
    heads = [name.removeprefix("shift/").replace("-", " ") for name in datasets]
    lines = ["| method | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for method in methods:
        cells = [cell(values(rows, n, method, dataset, metric)) for dataset in datasets]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _compared(scores: dict[str, np.ndarray], baseline: str, datasets: Sequence[str]) -> btl.metrics.Comparison:
    """Of methods with scores (seeds, data sets)."""
    tables = {
        method: [
            btl.metrics.ScoreTable(
                tuple(
                    btl.metrics.Score(name, "nll", float(score), float("nan"))
                    for name, score in zip(datasets, of_seed, strict=True)
                )
            )
            for of_seed in each
        ]
        for method, each in scores.items()
    }
    with warnings.catch_warnings():
        # Fewer than five seeds: those who ask for them know it.
        warnings.simplefilter("ignore", RuntimeWarning)
        return btl.metrics.compare(tables, baseline=baseline, metrics=("nll",))
