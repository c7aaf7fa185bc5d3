"""What few labels and learned priors gave: a table for each score, and verdicts against the zero-mean prior."""

from __future__ import annotations

import warnings

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import cell, of
from benchmarks.tasks.fewshot import ISOTROPIC, METHODS, NUM_CLASSES, PRIORS, ZERO_MEAN, Config

CAPTION = """\
Test scores over {seeds} seeds (which labels), mean ± standard error, on {test} test pictures that take part in no
choice. A frozen ResNet-20, published for CIFAR-10, and its last layer learned anew from n labelled JPEG pictures of
the same classes. Each row is the mode under one kind of prior; its scale is the best of {settings} by the NLL of a
fifth of the n labels, then all n are fitted: {steps} steps of Adam a run. The learned mean is the published last
layer, or the mean of SGD's iterates on the source task; the low-rank covariance is that of the iterates, the diagonal
one of the source's own Laplace posterior, both with a floor of a tenth of their average variance."""
PUBLISHED = """\
Published, with a whole ResNet-50 from ImageNet in place of a last layer, and not ours: Harvey, Petrov and Hughes 2024,
"Transfer Learning with Informative Priors: Simple Baselines Better than Previously Reported" (TMLR, arXiv 2405.15583,
abstract) report for 5 to 300 labels per class "negative or negligible gains on 2 datasets, modest gains (between 1.5-3
points of accuracy) on 2 other datasets, and substantial gains (>8 points) on one dataset" of informative priors over
standard transfer learning, and that "an isotropic covariance appears competitive with learned low-rank covariance
matrix"."""
TITLES = {"nll": "NLL", "accuracy": "Accuracy", "ece": "Expected calibration error"}


def report(config: Config, rows: Rows) -> str:
    """Tables in Markdown."""
    words = {"test": NUM_CLASSES * config.per_class[2], "settings": len(config.scales)}
    parts = [CAPTION.format(**words, seeds=config.seeds, steps=config.steps)]
    for metric, title in TITLES.items():
        parts += [f"### {title}", _table(config, rows, metric)]
    if config.seeds > 1:
        parts += [
            f"### Is it real? NLL against {ZERO_MEAN}, and against {ISOTROPIC}",
            "Paired by seed, t tests with Holm's correction over all lines, at 95 % (`metrics.compare`).",
            _compared(config, rows, ZERO_MEAN),
            _compared(config, rows, ISOTROPIC),
        ]
    return "\n\n".join([*parts, PUBLISHED]) + "\n"


def _table(config: Config, rows: Rows, metric: str) -> str:
    lines = ["| n | " + " | ".join(METHODS) + " |", "|---|" + "---|" * len(METHODS)]
    for n in config.num_labels:
        cells = [cell(of(rows.rows, metric, n=n, method=method)) for method in METHODS]
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _compared(config: Config, rows: Rows, baseline: str) -> str:
    tables = {
        method: [
            btl.metrics.ScoreTable(
                tuple(
                    btl.metrics.Score(f"n = {n}", "nll", float(of(rows.rows, "nll", n=n, method=method)[seed]), 0.0)
                    for n in config.num_labels
                )
            )
            for seed in range(config.seeds)
        ]
        for method in PRIORS
    }
    with warnings.catch_warnings():
        # Fewer than five seeds: those who ask for them know it.
        warnings.simplefilter("ignore", RuntimeWarning)
        return btl.metrics.compare(tables, baseline=baseline, metrics=("nll",)).to_markdown()
