"""A metric against the number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayestl._arguments import check_arguments
from bayestl.plots._style import axes, finish, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def metric_against_n(ns: Sequence[float], values: Mapping[str, Any], ax: Axes | None = None, ylabel: str = "") -> Axes:
    """Mean over seeds of a metric against the amount of target data, one line per method, bars of one standard error.

    The standard error is that of the mean, ``std / sqrt(seeds)`` with divisor seeds - 1; with one seed there is no bar.

    Args:
        ns: amounts of data, positive; they become the ticks of a logarithmic axis.
        values: method to its values, (seeds, len(ns)); nan where it was not run.
        ax: axes to draw on; None for a new figure.
        ylabel: name of the metric.

    Raises:
        ValueError: values of another shape, no methods, or amounts that are not positive.
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> nll = {"scratch": np.array([[1.4, 1.2], [1.6, 1.0]]), "L2-SP": np.array([[0.9, 0.6], [0.7, 0.6]])}
        >>> ax = btl.plots.metric_against_n([1, 3], nll, ylabel="NLL")
        >>> [line.get_label() for line in ax.get_lines()]
        ['scratch', 'L2-SP']
    """
    check_arguments(metric_against_n, locals())
    positions, tables = _checked(ns, values)
    ax = axes(ax, (6.8, 3.8))
    for name, style in styles(tables).items():
        table = tables[name]
        mean = table.mean(axis=0)
        ax.plot(
            positions,
            mean,
            color=style.color,
            marker=style.marker,
            linestyle=style.line,
            linewidth=1.5,
            label=name,
            zorder=3,
        )
        if len(table) > 1:
            error = table.std(axis=0, ddof=1) / np.sqrt(len(table))
            ax.vlines(positions, mean - error, mean + error, color=style.color, linewidth=1.5, zorder=2)
    ax.set_xscale("log")
    ax.set_xticks(positions, labels=[f"{n:g}" for n in ns])
    ax.minorticks_off()
    ax.set(xlabel="n", ylabel=ylabel)
    # Entries from top to bottom as the lines end, so that each stands beside its own.
    finish(ax, sorted(ax.get_lines(), key=lambda line: -np.asarray(line.get_ydata())[-1]))
    return ax


def _checked(ns: Sequence[float], values: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    positions = np.asarray(ns, float)
    if positions.ndim != 1 or not np.all(positions > 0):
        raise ValueError(f"ns is {ns}; it must be a list of positive numbers, for a logarithmic axis")
    if not values:
        raise ValueError("values is empty; give at least one method")
    tables = {name: np.asarray(table, float) for name, table in values.items()}
    for name, table in tables.items():
        if table.ndim != 2 or table.shape[1] != len(positions) or not len(table):
            raise ValueError(
                f"values of {name!r} have shape {table.shape}, but must be (seeds, {len(positions)}): a row for each "
                "seed, a column for each n"
            )
    return positions, tables
