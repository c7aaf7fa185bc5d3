"""How a run went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayestl._arguments import check_arguments
from bayestl.plots._style import axes, finish, styles
from bayestl.training import FitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def history(result: FitResult, ax: Axes | None = None, window: int | None = None) -> Axes:
    """The objective of a run and its validation score against steps.

    The objective is drawn as it is, pale, and smoothed: at each step the mean of the last ``window`` steps, or of all
    where there are fewer. The validation score, where the run had ``validate``, is drawn at the steps that have one.

    Args:
        result: of :func:`bayestl.fit`, or one member of that of :func:`bayestl.fit_many`.
        ax: axes to draw on; None for a new figure.
        window: steps that are averaged, at least 1; by default a twentieth of the run.

    Raises:
        ValueError: a window below 1, or a run without steps.
        TypeError: something else than one run's result.
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib; matplotlib.use("Agg")
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=4)
        >>> data = btl.data.arrays(jnp.ones((4, 1)), jnp.full(4, 2.0))
        >>> method = btl.infer.map_estimate(joint, optax.sgd(0.5))
        >>> fitted = btl.fit(jax.random.key(0), method, net.params, data, epochs=8, validate=data, progress=False)
        >>> ax = btl.plots.history(fitted)
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['objective', 'objective, mean of 1 step', 'validation nll']
    """
    check_arguments(history, locals())
    if not isinstance(result, FitResult):
        raise TypeError(f"result is a {type(result).__name__}; give what fit gives, or one member of fit_many")
    objective = np.asarray(result.history.get("objective", ()), float)
    if not len(objective):
        raise ValueError("result has a history without steps, and there is nothing to draw")
    window = max(1, len(objective) // 20) if window is None else window
    if window < 1:
        raise ValueError(f"window is {window}; give a number of steps to average over, at least 1")
    ax = axes(ax, (6.8, 3.8))
    steps = np.arange(1, len(objective) + 1)
    training, validation = styles(["objective", "validation"]).values()
    label = f"objective, mean of {window} step{'s' if window > 1 else ''}"
    ax.plot(steps, objective, color=training.color, alpha=0.3, linewidth=1, label="objective", zorder=1)
    ax.plot(steps, _smoothed(objective, window), color=training.color, linewidth=1.5, label=label, zorder=2)
    if "validation_nll" in result.history:
        score = np.asarray(result.history["validation_nll"], float)
        scored = ~np.isnan(score)
        ax.plot(
            steps[scored],
            score[scored],
            color=validation.color,
            marker=validation.marker,
            markersize=3,
            linewidth=1.5,
            label="validation nll",
            zorder=3,
        )
    ax.set(xlabel="step", ylabel="nats per example")
    finish(ax, ax.get_lines())
    return ax


def _smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """At each step the mean of the last ``window`` values, or of all so far."""
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[ends] - sums[starts]) / (ends - starts)
