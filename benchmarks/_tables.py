"""Rows to tables: mean and standard error over seeds, and paired differences to a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

import bayestl as btl


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error of the mean; the error is nan for one value."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return float(values.mean()), float(error)


def of(rows: Sequence[dict[str, Any]], field: str, **key: Any) -> np.ndarray:
    """One field of the rows with this key, in order of seed."""
    matching = [row for row in rows if all(row[name] == value for name, value in key.items())]
    return np.array([row[field] for row in sorted(matching, key=lambda row: row["seed"])], float)


def score_tables(rows: Sequence[dict[str, Any]], metrics: Sequence[str], **key: Any) -> list[btl.metrics.ScoreTable]:
    """The rows with this key as tables for ``metrics.compare``, one for each seed, in order."""
    columns = [of(rows, metric, **key) for metric in metrics]
    return [
        btl.metrics.ScoreTable(
            tuple(btl.metrics.Score("test", m, float(v), float("nan")) for m, v in zip(metrics, each, strict=True))
        )
        for each in zip(*columns, strict=True)
    ]


def bins_of(rows: Sequence[dict[str, Any]], **key: Any) -> list[btl.metrics.ReliabilityBins]:
    """The reliability bins of the rows with this key."""
    matching = [row["bins"] for row in rows if all(row[name] == value for name, value in key.items())]
    return [btl.metrics.ReliabilityBins(**{name: jnp.asarray(v) for name, v in bins.items()}) for bins in matching]


def cell(values: np.ndarray, digits: int = 3, sign: bool = False) -> str:
    """``mean ± standard error``."""
    mean, error = mean_and_error(values)
    return f"{mean:{'+' if sign else ''}.{digits}f} ± {error:.{digits}f}"


def in_words(compared: Any, sentence: str) -> list[str]:
    """What is better and what is worse than the baseline by the verdicts of a comparison, one line for each.

    Args:
        compared: what ``metrics.compare`` gives.
        sentence: such as "{} than the baseline".
    """
    datasets = list(dict.fromkeys(each.dataset for each in compared.differences))
    lines = []
    for verdict in ("better", "worse"):
        places: dict[str, list[str]] = {}
        for each in compared.differences:
            if each.verdict == verdict:
                places.setdefault(each.method, []).append(each.dataset.removeprefix("shift/").replace("-", " "))
        told = [
            method if len(datasets) == 1 else f"{method} ({'all' if len(at) == len(datasets) else ', '.join(at)})"
            for method, at in places.items()
        ]
        lines.append(f"- {sentence.format(verdict)}: {'; '.join(told) or 'none'}.")
    return lines


def lowest(columns: dict[str, dict[str, float]]) -> list[str]:
    """One line for each column of means, name to method to mean: which method has the lowest."""
    lines = []
    for name, means in columns.items():
        best = min(means, key=lambda method: means[method])
        lines.append(f"- lowest NLL, {name}: {best} ({means[best]:.3f}).")
    return lines


def cell_of_seeds(values: np.ndarray) -> str:
    """The same of a run with any number of seeds: the mean alone where there is but one."""
    return cell(values) if len(values) > 1 else f"{values.mean():.3f}"


def verdict(difference: np.ndarray, name: str = "NLL", digits: int = 3, larger_is_better: bool = False) -> str:
    """A paired difference, and whether it is more than two standard errors."""
    mean, error = mean_and_error(difference)
    word = "no clear difference"
    if abs(mean) > 2 * error:
        word = f"{'better' if (mean > 0) == larger_is_better else 'worse'} by more than two standard errors"
    return f"{name} {cell(difference, digits, sign=True)}, {word}"


def markdown(
    rows: Sequence[dict[str, Any]],
    key: dict[str, Any],
    methods: Sequence[str],
    baseline: str,
    fields: Sequence[str] = ("accuracy", "nll", "brier", "ece"),
) -> str:
    """A table with one line per method and the paired NLL difference to ``baseline``."""
    lines = [
        "| method | " + " | ".join(fields) + f" | nll minus {baseline} | seconds |",
        "|---|" + "---|" * (len(fields) + 2),
    ]
    reference = of(rows, "nll", method=baseline, **key)
    for method in methods:
        nll = of(rows, "nll", method=method, **key)
        if not len(nll):
            continue
        cells = [cell(of(rows, field, method=method, **key)) for field in fields]
        paired = "" if method == baseline or len(nll) != len(reference) else cell(nll - reference, sign=True)
        seconds = f"{of(rows, 'seconds', method=method, **key).mean():.2f}"
        lines.append(f"| {method} | " + " | ".join([*cells, paired, seconds]) + " |")
    return "\n".join(lines)
