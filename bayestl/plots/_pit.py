"""Histograms of probability integral transforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.plots._style import COLUMN, DASHES, axes, finish_above, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pit(values: Mapping[str, Numbers], ax: Axes | None = None, *, num_bins: int = 10) -> Axes:
    """How often targets fall into each part of their predictive, one line for each method; flat where it is right.

    High at both ends, predictives are too narrow; high in the middle, too wide; a slope is a bias. The grey band is
    where 95% of the bins of a right predictive would lie, by the normal approximation, for the method of fewest
    targets.

    Args:
        values: method to its transforms, of :func:`bayestl.metrics.pit`, of any shape.
        ax: axes to draw on; None for a new figure, one column wide.
        num_bins: of equal width.

    Raises:
        ValueError: no method, no bin, no values, or values outside [0, 1].
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> ax = btl.plots.pit({"mine": np.array([0.1, 0.2, 0.3, 0.9])}, num_bins=2)
        >>> ax.patches[0].get_data().values.tolist()
        [1.5, 0.5]
    """
    check_arguments(pit, locals())
    each = {name: np.asarray(value, float).ravel() for name, value in values.items()}
    if not each or num_bins < 1:
        raise ValueError(f"{len(each)} methods in {num_bins} bins; give at least one of each")
    for name, value in each.items():
        if not value.size or not np.all((value >= 0) & (value <= 1)):
            raise ValueError(f"values[{name!r}] must be between 0 and 1, at least one; give what metrics.pit gives")
    edges = np.linspace(0, 1, num_bins + 1)
    ax = axes(ax, COLUMN)
    for number, (name, style) in enumerate(styles(each).items()):
        density = np.histogram(each[name], edges)[0] * num_bins / each[name].size
        dashes = DASHES[number % len(DASHES)]
        ax.stairs(density, edges, baseline=None, edgecolor=style.color, linestyle=dashes, linewidth=1.5, label=name)
    handles = list(ax.patches)
    fewest = min(value.size for value in each.values())
    half = 1.96 * np.sqrt((num_bins - 1) / fewest)
    band = ax.axhspan(max(0, 1 - half), 1 + half, color="0.85", zorder=0, label="95% of right ones")
    ax.axhline(1, color="0.5", linewidth=1, linestyle="--", zorder=1)
    ax.set(xlim=(0, 1), xlabel="predictive probability below the target", ylabel="density (right: 1)")
    ax.set_ylim(bottom=0)
    finish_above(ax, [*handles, band])
    return ax
