"""What the data changed, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl.gaussians import Gaussian
from bayestl.plots._style import COLUMN, axes, finish_above, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def prior_against_posterior(prior: Gaussian, posterior: Gaussian, ax: Axes | None = None) -> Axes:
    """How wide prior and posterior are in each layer, and how far the mean has moved, on one logarithmic axis.

    A posterior as wide as the prior has learned nothing there; a mean that has moved by more than the prior is wide
    contradicts the source. Widths are roots of mean variances, movements roots of mean squares, over the parameters of
    a layer: what shares its path but for the last key.

    Args:
        prior: over the parameters.
        posterior: over the same parameters.
        ax: axes to draw on; None for a new figure, one column wide.

    Raises:
        ValueError: Gaussians over other parameters.
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> params = {"body": {"w": jnp.zeros(4)}, "head": {"w": jnp.ones(4)}}
        >>> prior = btl.gaussians.isotropic(btl.tree.zeros_like(params), scale=0.5)
        >>> ax = btl.plots.prior_against_posterior(prior, btl.gaussians.isotropic(params, scale=0.25))
        >>> [line.get_xdata().tolist() for line in ax.get_lines()]
        [[0.5, 0.5], [0.25, 0.25], [0.0, 1.0]]
    """
    check_arguments(prior_against_posterior, locals())
    _tree.check_same_structure("posterior", posterior.mean, "prior", prior.mean, "give the one under this prior")
    moved = _tree.sub(posterior.mean, prior.mean)
    sizes = {path: leaf.size for path, leaf in _tree.by_paths(prior.mean).items()}
    squares = {
        "prior width": _tree.by_paths(prior.variance),
        "posterior width": _tree.by_paths(posterior.variance),
        "mean moved": {path: np.square(leaf) for path, leaf in _tree.by_paths(moved).items()},
    }
    layers = _tree.paths_by_layer(prior.mean)
    places = np.arange(len(layers))
    ax = axes(ax, (COLUMN[0], 1.5 + 0.28 * len(layers)))
    for label, style in styles(squares).items():
        lengths = [
            # A variance may stand for many parameters that share it.
            np.sqrt(np.average([np.mean(squares[label][p]) for p in paths], weights=[sizes[p] for p in paths]))
            for paths in layers.values()
        ]
        ax.plot(lengths, places, style.marker, color=style.color, markersize=5, label=label)
    ax.set_xscale("log")
    _label_few(ax)
    ax.set_yticks(places, list(layers))
    ax.invert_yaxis()
    ax.grid(axis="y", alpha=0.3)
    ax.set_xlabel("root mean square\n(units of the parameters)")
    finish_above(ax, ax.get_lines())
    return ax


def _label_few(ax: Axes) -> None:
    """Places on a logarithmic axis that do not overlap: within one power of ten, 1, 2 and 5 as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = ax.get_xlim()
    ax.xaxis.set_minor_formatter(NullFormatter())
    if high < 30 * low:
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
