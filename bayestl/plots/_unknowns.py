"""Histograms of a score, of known and of unknown examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.metrics import auroc
from bayestl.plots._style import COLUMN, DASHES, axes, finish_above, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def unknowns_histogram(
    scores_in: Numbers,
    scores_out: Mapping[str, Numbers],
    ax: Axes | None = None,
    *,
    xlabel: str = "score",
    num_bins: int = 30,
) -> Axes:
    """How a score is distributed over the task's examples, filled, and over each kind of unknown ones, as lines.

    The less they overlap, the better it tells them apart; the legend says how well, by :func:`bayestl.metrics.auroc`.

    Args:
        scores_in: (N,), of examples of the task; higher is less like it.
        scores_out: kind of unknown examples to their scores, (M,).
        ax: axes to draw on; None for a new figure, one column wide.
        xlabel: the score with its unit, such as ``"predictive entropy (nats)"``.
        num_bins: of equal width over all scores.

    Raises:
        ValueError: no kind of unknown examples, no scores, or NaN; scores that are not finite; no bin.
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> ax = btl.plots.unknowns_histogram([0.1, 0.2, 0.3], {"letters": [0.3, 0.9]}, num_bins=4)
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['known', 'letters, AUROC 0.92']
    """
    check_arguments(unknowns_histogram, locals())
    if not scores_out or num_bins < 1:
        raise ValueError(f"{len(scores_out)} kinds of unknown examples in {num_bins} bins; give at least one of each")
    if "known" in scores_out:
        raise ValueError("scores_out has a kind named 'known', which scores_in are; give it another name")
    worth = {name: auroc(scores_in, scores) for name, scores in scores_out.items()}
    each = {"known": np.asarray(scores_in), **{name: np.asarray(scores) for name, scores in scores_out.items()}}
    together = np.concatenate(list(each.values()))
    if not np.isfinite(together).all():
        raise ValueError("scores_in or scores_out are not finite, so that no bins hold them; leave these out")
    edges = np.histogram_bin_edges(together, num_bins)
    ax = axes(ax, COLUMN)
    for number, (name, style) in enumerate(styles(each).items()):
        values, is_known = each[name], number == 0
        percent = 100 * np.histogram(values, edges)[0] / len(values)
        label = name if is_known else f"{name}, AUROC {worth[name]:.2f}"
        fill = {"facecolor": style.color, "alpha": 0.35} if is_known else {"edgecolor": style.color, "linewidth": 1.5}
        ax.stairs(percent, edges, fill=is_known, linestyle=DASHES[number % len(DASHES)], label=label, **fill)
    ax.set(xlabel=xlabel, ylabel="examples in bin (%)")
    finish_above(ax, ax.patches)
    return ax
