"""Risk-coverage curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bayestl._arguments import check_arguments
from bayestl.metrics import RiskCoverage
from bayestl.plots._style import COLUMN, axes, finish_above, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def risk_coverage(curves: Mapping[str, RiskCoverage], ax: Axes | None = None, *, ylabel: str = "error rate") -> Axes:
    """The mean loss of what is answered against the share that is, one curve for each method; lower is better.

    Args:
        curves: method to what :func:`bayestl.metrics.risk_coverage` gives.
        ax: axes to draw on; None for a new figure, one column wide.
        ylabel: the loss, with its unit.

    Raises:
        ValueError: ``curves`` is empty.
        TypeError: something else than such curves.
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> curve = btl.metrics.risk_coverage([0.9, 0.6, 0.8, 0.7], [0, 1, 0, 0])
        >>> ax = btl.plots.risk_coverage({"mine": curve})
        >>> ax.get_lines()[0].get_ydata().tolist()
        [0.0, 0.0, 0.0, 0.25]
    """
    check_arguments(risk_coverage, locals())
    if not curves:
        raise ValueError("curves is empty; give at least one method with its metrics.risk_coverage")
    for name, curve in curves.items():
        if not isinstance(curve, RiskCoverage):
            raise TypeError(f"curves[{name!r}] is a {type(curve).__name__}; give what metrics.risk_coverage gives")
    ax = axes(ax, COLUMN)
    for name, style in styles(curves).items():
        curve = curves[name]
        # Markers at ten places, which tell the curves apart in print without colours.
        ax.plot(
            100 * np.asarray(curve.coverage),
            curve.risk,
            color=style.color,
            linestyle=style.line,
            marker=style.marker,
            markevery=max(1, len(curve.risk) // 10),
            markersize=3.5,
            linewidth=1.3,
            label=name,
        )
    ax.set(xlim=(0, 101), xlabel="answered, surest first (%)", ylabel=ylabel)
    ax.set_ylim(bottom=0)
    finish_above(ax, ax.get_lines())
    return ax
