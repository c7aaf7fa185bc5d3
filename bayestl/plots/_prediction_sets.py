"""Sizes of sets of classes, and how often they hold the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.plots._style import COLUMN, axes, finish_above, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def prediction_sets(sets: Numbers, labels: Numbers, ax: Axes | None = None) -> Axes:
    """How many classes the sets hold: a bar for each size, with the examples whose right class is missing on top.

    Sets of one class are answers, large ones say that the model does not know. Over all examples the missing ones are
    as many as was allowed; where they crowd in one size, the promise holds on average alone.

    Args:
        sets: (N, C), true where a class belongs to the set: what a ``predict.conformal.classes(...)`` gives.
        labels: (N,), the right classes.
        ax: axes to draw on; None for a new figure, one column wide.

    Raises:
        ValueError: other shapes, no example, or labels outside the classes.
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> sets = np.array([[True, False], [True, True], [True, False], [True, True]])
        >>> ax = btl.plots.prediction_sets(sets, np.array([0, 1, 1, 0]))
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['right class inside (75.0%)', 'missing (25.0%)']
    """
    check_arguments(prediction_sets, locals())
    given, classes = np.asarray(sets).astype(bool), np.asarray(labels)
    if given.ndim != 2 or not len(given) or classes.shape != given.shape[:1]:
        raise ValueError(f"sets has shape {given.shape} and labels {classes.shape}; give (N, C) and (N,), N at least 1")
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= given.shape[1]:
        raise ValueError(f"labels must be whole numbers from 0 to {given.shape[1] - 1}")
    sizes = given.sum(1)
    is_inside = given[np.arange(len(given)), classes]
    places = np.arange(sizes.min(), sizes.max() + 1)
    inside, missing = (
        100 * np.bincount(sizes[which], minlength=sizes.max() + 1)[places] / len(given)
        for which in (is_inside, ~is_inside)
    )
    ax = axes(ax, COLUMN)
    looks = styles(["inside", "unused", "other", "missing"])
    share = 100 * is_inside.mean()
    bars = [
        ax.bar(places, inside, color=looks["inside"].color, label=f"right class inside ({share:.1f}%)"),
        # Hatched: the two are told apart in print without colours, too.
        ax.bar(
            places,
            missing,
            bottom=inside,
            color=looks["missing"].color,
            hatch="////",
            edgecolor="white",
            linewidth=0,
            label=f"missing ({100 - share:.1f}%)",
        ),
    ]
    ax.locator_params(axis="x", integer=True)
    ax.set(xlabel="classes in the set", ylabel="examples (%)")
    finish_above(ax, bars)
    return ax
