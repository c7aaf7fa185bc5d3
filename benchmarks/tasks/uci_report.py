"""What the small regressions gave: a table for each data set, published lines beside ours."""

from __future__ import annotations

import warnings
from typing import Any

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import cell, in_words, of, score_tables
from benchmarks.tasks.uci import Config
from benchmarks.tasks.uci_methods import DRAWS, ENSEMBLE, HIDDEN, LAPLACE, MAP, MEMBERS, METHODS, RANK, SWAG, SWAG_RATES
from benchmarks.tasks.uci_published import PUBLISHED, SOURCES

CAPTION = """\
Mean ± standard error over the first {seeds} standard splits, in the original unit of the targets; a higher
log-likelihood is better, a lower RMSE and CRPS, and a coverage of the 90 % intervals near .90. One hidden layer of
{hidden} ReLU units; inputs and targets scaled by the training part. A method has {runs} runs of {steps} steps at
batches of {batch_size}: "by evidence" and Laplace alternate runs on the whole training part with steps of both
layers' prior scales and of the noise towards the largest evidence of dense Laplace; the others try {settings}
settings without a fifth of the training part, which chooses, and run once more with all of it (ensembles {members}
times). VI and SWAG (rank {rank}) average {draws} draws; Laplace is linearised. The noise is learned by all. No test
row takes part in any choice. Seconds are the share of one split, compilation included, on a machine that other work
shared.

NLL differences to {baseline} are paired by split; verdicts are those of `metrics.compare`, paired t tests with Holm's
correction over the methods of one data set, at 95 %. Training parts overlap, so that splits are not independent: take
standard errors and verdicts as the field does, with that grain of salt.

Published lines are citations, averaged over 20 splits where ours are {seeds}, under other budgets; their ± is as
printed, and not the same quantity in all of them, so no verdict compares them with ours."""
HEAD = "| method | log-likelihood | RMSE | CRPS | 90 % coverage | NLL less {baseline} | verdict | steps | seconds |"


def report(config: Config, rows: Rows) -> str:
    """Tables in Markdown."""
    parts = [
        CAPTION.format(
            seeds=config.seeds, hidden=HIDDEN, runs=len(config.scales) + 1, steps=config.steps,
            batch_size=config.batch_size, settings=len(config.scales), members=MEMBERS, rank=RANK, draws=DRAWS,
            baseline=MAP,
        )
    ]  # fmt: skip
    datasets = [name for name in config.datasets if _complete(config, rows, name)]
    for dataset in datasets:
        size = next(f"{row['num_train']} / {row['num_test']}" for row in rows.rows if row["dataset"] == dataset)
        parts += [f"### {dataset} ({size} rows for training / test)", _table(rows, dataset)]
    if missing := sorted(set(config.datasets) - set(datasets)):
        parts.append(f"Not run to the end yet: {', '.join(missing)}.")
    parts += [_summary(config, datasets, rows), "Sources of the published lines:", SOURCES]
    return "\n\n".join(parts) + "\n"


def _table(rows: Rows, dataset: str) -> str:
    compared = _compared(rows, dataset)
    lines = [HEAD.format(baseline=MAP), "|---|---|---|---|---|---|---|---|---|"]
    for method in METHODS:
        key = {"dataset": dataset, "method": method}
        fields = [of(rows.rows, name, **key) for name in ("nll", "rmse", "crps", "interval_coverage")]
        cells = [cell(values) for values in (-fields[0], *fields[1:])]
        told = ["", ""]
        if method != MAP and compared is not None:
            difference = compared[method, "test", "nll"]
            told = [f"{difference.difference:+.3f} ± {difference.standard_error:.3f}", difference.verdict]
        steps, seconds = of(rows.rows, "gradient_steps", **key).mean(), of(rows.rows, "seconds", **key).mean()
        lines.append("| " + " | ".join([method, *cells, *told, f"{steps:,.0f}", f"{seconds:.0f}"]) + " |")
    for line in PUBLISHED[dataset]:
        lines.append(f"| *published:* {line.method} | {line.log_likelihood} | {line.rmse} | | | | | | |")
    return "\n".join(lines)


def _compared(rows: Rows, dataset: str) -> Any:
    """Against MAP; None for one split."""
    tables = {m: score_tables(rows.rows, ("nll",), dataset=dataset, method=m) for m in METHODS}
    if len(tables[MAP]) < 2:
        return None
    with warnings.catch_warnings():
        # Fewer than five splits: those who ask for them know it.
        warnings.simplefilter("ignore", RuntimeWarning)
        return btl.metrics.compare(tables, baseline=MAP, metrics=("nll",))


def _complete(config: Config, rows: Rows, dataset: str) -> bool:
    """Whether every method has every split, so that a table compares like with like."""
    return all(rows.have(dataset=dataset, method=m, seed=seed) for m in METHODS for seed in range(config.seeds))


def _summary(config: Config, datasets: list[str], rows: Rows) -> str:
    """Which of our rows is first on each data set, and where the posterior pays."""
    lines = ["### In words", ""]
    for dataset in datasets:
        mean = {m: float(-of(rows.rows, "nll", dataset=dataset, method=m).mean()) for m in METHODS}
        error = {m: float(of(rows.rows, "rmse", dataset=dataset, method=m).mean()) for m in METHODS}
        best, sharpest = max(mean, key=lambda m: mean[m]), min(error, key=lambda m: error[m])
        lines.append(
            f"- {dataset}: highest log-likelihood {best} ({mean[best]:.2f}; {MAP} {mean[MAP]:.2f}, {ENSEMBLE} "
            f"{mean[ENSEMBLE]:.2f}, {LAPLACE} {mean[LAPLACE]:.2f}), lowest RMSE {sharpest} ({error[sharpest]:.3g})."
        )
        compared = _compared(rows, dataset)
        if compared is not None:
            lines += in_words(compared, f"{dataset}, {{}} NLL than {MAP}")
        lines.append(
            f"- {dataset}, splits whose chosen scale is at an end of the grid: {_at_ends(config, dataset, rows)}."
        )
    return "\n".join(lines)


def _at_ends(config: Config, dataset: str, rows: Rows) -> str:
    """Methods with the number of their choices that more scales might have changed."""
    numbers: dict[str, int] = {}
    for row in rows.rows:
        # SWAG has fewer scales and some rates in their place.
        scales = config.scales[:: len(SWAG_RATES)] if row["method"] == SWAG else config.scales
        ends = min(scales), max(scales)
        scale = row["setting"].get("scale")
        if row["dataset"] == dataset and scale is not None and min(abs(scale / end - 1) for end in ends) < 1e-3:
            numbers[row["method"]] = numbers.get(row["method"], 0) + 1
    return ", ".join(f"{method} {number} of {config.seeds}" for method, number in numbers.items()) or "none"
