"""What few labels and learned priors gave: a table for each score, and verdicts against the zero-mean prior."""

from __future__ import annotations

import warnings

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import cell, in_words, lowest, of
from benchmarks.tasks.fewshot import ITERATES, METHODS, NUM_CLASSES, PRIORS, ZERO_MEAN, Config

CAPTION = """\
Test scores over {seeds} seeds (which labels), mean ± standard error, on {test} test pictures that take part in no
choice. A frozen ResNet-20, published for CIFAR-10, and its last layer learned anew from n labelled JPEG pictures of
the same classes. Each row is the mode under one kind of prior; its scale is the best of {settings} by the NLL of a
fifth of the n labels, then all n are fitted: {steps} steps of Adam a run. The learned mean is the published last
layer; that of the low-rank prior is the mean of SGD's iterates on {source} pictures of the source task, and the
covariance is theirs. These pictures are behind JPEG too, no others being at hand: the iterates have met it, the
published layer has not. "{iterates}" is the same mean without the covariance, so that the low-rank
row against it says what the covariance is worth. The diagonal covariance is that of the source's own Laplace
posterior; both have a floor of a tenth of their average variance."""
PUBLISHED = """\
Published, with a whole ResNet-50 from ImageNet in place of a last layer, and not ours: Harvey, Petrov and Hughes 2024,
"Transfer Learning with Informative Priors: Simple Baselines Better than Previously Reported" (TMLR, arXiv 2405.15583,
abstract) report for 5 to 300 labels per class "negative or negligible gains on 2 datasets, modest gains (between 1.5-3
points of accuracy) on 2 other datasets, and substantial gains (>8 points) on one dataset" of informative priors over
standard transfer learning, and that "an isotropic covariance appears competitive with learned low-rank covariance
matrix"."""
# Percent of test pictures that are wrong, mean and what stands behind its ±, as printed.
CITED = {10: (73.8, 3.2), 100: (43.1, 3.1), 1000: (21.6, 1.6)}
CITATION = """\
The column in italics is a citation, and not ours: one less the test error of "FullBayes LearnedPriorLR", a whole
ResNet-50 from ImageNet without labels, its posterior sampled under a learned low-rank prior, on CIFAR-10 as it was
published; Shwartz-Ziv et al. 2022, "Pre-Train Your Loss: Easy Bayesian Transfer Learning with Informative Priors"
(NeurIPS), as Harvey, Petrov and Hughes list it (tufts-ml/bdl-transfer-learning, notebooks/Figure_1.ipynb). Our source
knows these ten classes already, theirs does not, so that the two are not to be compared number by number."""
TITLES = {"nll": "NLL", "accuracy": "Accuracy", "ece": "Expected calibration error"}


def report(config: Config, rows: Rows) -> str:
    """Tables in Markdown."""
    numbers = [n for n in config.num_labels if _complete(config, rows, n)]
    missing = [n for n in config.num_labels if n not in numbers]
    config = config._replace(num_labels=tuple(numbers))
    words = {"test": NUM_CLASSES * config.per_class[2], "settings": len(config.scales), "iterates": ITERATES}
    words["source"] = NUM_CLASSES * config.per_class[0]
    parts = [CAPTION.format(**words, seeds=config.seeds, steps=config.steps)]
    if missing:
        parts.append(f"Not run to the end yet: n = {', '.join(map(str, missing))}.")
    for metric, title in TITLES.items():
        parts += [f"### {title}", _table(config, rows, metric)]
        if metric == "accuracy":
            parts.append(CITATION)
    if config.seeds > 1:
        compared = {baseline: _compared(config, rows, baseline) for baseline in (ZERO_MEAN, ITERATES)}
        means = {
            f"n = {n}": {method: float(of(rows.rows, "nll", n=n, method=method).mean()) for method in METHODS}
            for n in config.num_labels
        }
        words = [
            *lowest(means),
            *(line for baseline, each in compared.items() for line in in_words(each, f"{{}} than {baseline}")),
        ]
        parts += [
            "### In words",
            "\n".join(words),
            f"### Is it real? NLL against {ZERO_MEAN}, and against {ITERATES}",
            "Paired by seed, t tests with Holm's correction over all lines, at 95 % (`metrics.compare`).",
            *(each.to_markdown() for each in compared.values()),
        ]
    return "\n\n".join([*parts, PUBLISHED]) + "\n"


def _complete(config: Config, rows: Rows, n: int) -> bool:
    """Whether every method has every seed, so that a line compares like with like."""
    return all(rows.have(n=n, method=method, seed=seed) for method in METHODS for seed in range(config.seeds))


def _table(config: Config, rows: Rows, metric: str) -> str:
    cited = metric == "accuracy"
    heads = [*METHODS, *(["*published: whole network, sampled*"] if cited else [])]
    lines = ["| n | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for n in config.num_labels:
        cells = [cell(of(rows.rows, metric, n=n, method=method)) for method in METHODS]
        if cited:
            error, spread = CITED.get(n, (None, None))
            cells.append("" if error is None or spread is None else f"*{1 - error / 100:.3f} ± {spread / 100:.3f}*")
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _compared(config: Config, rows: Rows, baseline: str) -> btl.metrics.Comparison:
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
        return btl.metrics.compare(tables, baseline=baseline, metrics=("nll",))
