"""Which layers fight the source."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bayestl._arguments import check_arguments
from bayestl.plots._style import axes, finish, styles
from bayestl.transferability import Conflict

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def conflict(result: Conflict, ax: Axes | None = None) -> Axes:
    """How far each layer has moved from its prior: a bar per layer on a logarithmic axis, with 1 as a line.

    Drawn is the tension, squared distance per direction that the data determine, where there was a posterior:
    layers right of the line want a wider prior, or another mean. Without one it is the squared distance over D. Of
    priors with a low-rank part, a marker shows the share of the movement inside of it.

    Args:
        result: of :func:`bayestl.transferability.conflict`.
        ax: axes to draw on; None for a new figure.

    Raises:
        TypeError: something else than a conflict.
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> prior = btl.gaussians.isotropic({"body": jnp.zeros(4), "head": jnp.zeros(4)}, scale=0.5)
        >>> mode = {"body": jnp.full(4, 0.1), "head": jnp.full(4, 2.0)}
        >>> ax = btl.plots.conflict(btl.transferability.conflict(prior, mode))
        >>> [round(float(bar.get_width()), 2) for bar in ax.patches]
        [0.04, 16.0]
    """
    check_arguments(conflict, locals())
    if not isinstance(result, Conflict):
        raise TypeError(f"result is a {type(result).__name__}; give what transferability.conflict gives")
    has_posterior = all(not math.isnan(layer.determined) for layer in result.layers)
    label = "squared distance / directions determined" if has_posterior else "squared distance / D"
    values = [layer.tension if has_posterior else layer.mahalanobis for layer in result.layers]
    ax = axes(ax, (6.8, 1.2 + 0.4 * len(values)))
    places = np.arange(len(values))
    bars, marks = styles(["distance", "inside"]).values()
    ax.barh(places, values, height=0.6, color=bars.color, label=label)
    handles = [ax.containers[0]]
    inside = np.array([layer.inside for layer in result.layers])
    if not np.all(np.isnan(inside)):
        handles += ax.plot(inside, places, marks.marker, color=marks.color, label="share inside the low-rank part")
    ax.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    ax.set_yticks(places, [layer.layer for layer in result.layers])
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlabel("1: as far as the prior expected")
    finish(ax, handles)
    return ax
