"""Reliability curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayestl._arguments import check_arguments
from bayestl.metrics import ReliabilityBins
from bayestl.plots._style import axes, finish, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def reliability(
    bins: Mapping[str, ReliabilityBins | Sequence[ReliabilityBins]], ax: Axes | None = None, min_count: int = 1
) -> Axes:
    """Accuracy against confidence, one curve for each method; on the diagonal, confidence equals accuracy.

    Below the diagonal a method is overconfident. The area of a marker grows with the share of
    a method's examples that its bin holds.

    Args:
        bins: method to its bins, from :func:`bayestl.metrics.reliability_bins`, or to those of several seeds (a list,
            or arrays with leading axes), whose examples are then pooled.
        ax: axes to draw on; None for a new figure.
        min_count: bins with fewer examples (pooled over seeds) are left out of the curve: their accuracy is noise.

    Raises:
        ValueError: ``bins`` is empty, or seeds of one method have different numbers of bins.
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> given = btl.predict.from_probabilities(jnp.array([[0.3, 0.7], [0.9, 0.1]]))
        >>> ax = btl.plots.reliability({"mine": btl.metrics.reliability_bins(given, jnp.array([0, 0]))})
        >>> ax.get_ylabel()
        'accuracy'
    """
    check_arguments(reliability, locals())
    if not bins:
        raise ValueError("bins is empty; give at least one method with its reliability_bins")
    pooled = {name: _pooled(name, of_method) for name, of_method in bins.items()}
    ax = axes(ax, (6.2, 4.2))
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="calibrated", zorder=1)
    for name, style in styles(pooled).items():
        confidence, accuracy, count = pooled[name]
        some = count >= max(min_count, 1)
        ax.plot(
            confidence[some],
            accuracy[some],
            color=style.color,
            marker=style.marker,
            linestyle=style.line,
            markersize=3,
            linewidth=1.5,
            label=name,
            zorder=3,
        )
        share = count[some] / max(count.sum(), 1)
        ax.scatter(
            confidence[some], accuracy[some], s=500 * share, color=style.color, alpha=0.25, linewidth=0, zorder=2
        )
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    ax.set_box_aspect(1)
    # Layout leaves room beside the axes as they were before they were made square: pushed left, the label stays inside.
    ax.set_anchor("W")
    finish(ax, ax.get_lines())
    return ax


def _pooled(name: str, bins: ReliabilityBins | Sequence[ReliabilityBins]) -> ReliabilityBins:
    """The bins of all seeds' examples together, as numpy arrays."""
    seeds = [bins] if isinstance(bins, ReliabilityBins) else list(bins)
    widths = sorted({np.shape(seed.count)[-1] for seed in seeds})
    if len(widths) != 1:
        raise ValueError(f"bins of {name!r} must agree in number over the seeds, but have {widths}")
    confidence, accuracy, count = (
        np.concatenate([np.asarray(field, float).reshape(-1, widths[0]) for field in fields])
        for fields in zip(*seeds, strict=True)
    )
    total = count.sum(axis=0)

    def mean(values: np.ndarray) -> np.ndarray:
        summed = np.sum(np.where(count > 0, count * values, 0), axis=0)
        return np.divide(summed, total, out=np.full(widths[0], np.nan), where=total > 0)

    return ReliabilityBins(mean(confidence), mean(accuracy), total)  # pyright: ignore[reportArgumentType]
