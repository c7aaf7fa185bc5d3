"""Sources against scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayestl._arguments import check_arguments
from bayestl.plots._style import axes, finish, styles
from bayestl.transferability import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def ranking(result: Ranking, ax: Axes | None = None) -> Axes:
    """What every score says of every source: the best source on top, each score between its worst and its best source.

    Scores have different units, so that each is drawn between 0 (the worst source by it) and 1 (the best). A score that
    says the same of all, or applies to none, is left out.

    Args:
        result: of :func:`bayestl.transferability.rank_sources`.
        ax: axes to draw on; None for a new figure.

    Raises:
        TypeError: something else than a ranking.
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> labels = np.tile([0, 1], 10)
        >>> sources = {"blind": np.ones((20, 1)), "sees": labels[:, None] + 0.1}
        >>> ax = btl.plots.ranking(btl.transferability.rank_sources(sources, labels))
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['sees', 'blind']
    """
    check_arguments(ranking, locals())
    if not isinstance(result, Ranking):
        raise TypeError(f"result is a {type(result).__name__}; give what transferability.rank_sources gives")
    ax = axes(ax, (6.8, 1.2 + 0.45 * len(result.names)))
    places = np.arange(len(result.names))
    drawn = {name: scaled for name, values in result.scores.items() if (scaled := _scaled(values)) is not None}
    offsets = np.linspace(-0.25, 0.25, len(drawn)) if len(drawn) > 1 else [0.0]
    for (name, style), offset in zip(styles(drawn).items(), offsets, strict=True):
        ax.plot(drawn[name], places + offset, style.marker, color=style.color, label=name, markersize=6)
    ax.set_yticks(places, result.names)
    ax.invert_yaxis()
    ax.set_xticks([0, 1], ["worst", "best"])
    ax.grid(axis="y", alpha=0.3)
    finish(ax, ax.get_lines())
    return ax


def _scaled(values: np.ndarray) -> np.ndarray | None:
    if np.all(np.isnan(values)) or np.nanmax(values) == np.nanmin(values):
        return None
    return (values - np.nanmin(values)) / (np.nanmax(values) - np.nanmin(values))
