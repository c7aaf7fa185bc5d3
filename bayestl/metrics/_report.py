"""All metrics that apply, at once."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Targets
from bayestl.metrics._accuracy import ACCURACY, MACRO_ACCURACY
from bayestl.metrics._calibration import ECE, ECE_EQUAL_MASS
from bayestl.metrics._examples import Predictive, check_targets
from bayestl.metrics._metric import Metric
from bayestl.metrics._regression import COVERAGE, CRPS, RMSE
from bayestl.metrics._scores import BRIER, NLL

_CLASSIFICATION = (ACCURACY, MACRO_ACCURACY, NLL, BRIER, ECE, ECE_EQUAL_MASS)
_NORMAL = (NLL, RMSE, CRPS, COVERAGE)
_MOMENTS = (RMSE,)
_OTHER = (NLL, RMSE)
_SEVERAL_HEADS = (NLL,)


def report(predictive: Predictive, targets: Targets, weights: Numbers | None = None) -> dict[str, float]:
    """The metrics that apply to a predictive, by name, each with its default setting.

    Classes: accuracy, macro_accuracy, nll, brier, ece and ece_equal_mass (15 bins). Mixtures of normals: nll, rmse,
    crps, interval_coverage (level 0.9). Means and variances without a density: rmse. Targets of several heads: nll.
    Everything else: nll, rmse.

    Args:
        predictive: of any kind.
        targets: (B, ...), or a pytree of such arrays.
        weights: None, or (B,), how often each example counts, 0 for padding.

    Raises:
        ValueError: labels outside the classes, or targets outside the support; negative or non-finite weights.
        TypeError: a predictive of all examples together.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
        >>> list(btl.metrics.report(given, jnp.array([1, 0])))
        ['accuracy', 'macro_accuracy', 'nll', 'brier', 'ece', 'ece_equal_mass']
    """
    check_arguments(report, locals())
    targets = _tree.with_arrays(targets)
    chosen = metrics_of(predictive, targets)
    check_targets(predictive, targets, weights)
    values = _values(predictive, targets, weights, chosen)
    return {metric.name: float(value) for metric, value in zip(chosen, values, strict=True)}


def metrics_of(predictive: Predictive, targets: Targets) -> tuple[Metric, ...]:
    """The metrics that apply to a predictive of such targets.

    Raises:
        TypeError: a predictive of all examples together, which has no score of each.
    """
    if not hasattr(predictive, "is_classification"):
        raise TypeError(
            f"metrics score each example by itself, and a {type(predictive).__name__} is about all of them together; "
            "give what predict.monte_carlo or predict.linearized makes, or a joint predictive's sampled(key, num)"
        )
    if jax.tree.structure(targets) != jax.tree.structure(0):
        return _SEVERAL_HEADS
    if predictive.is_classification:
        return _CLASSIFICATION
    if predictive.is_normal:
        return _NORMAL
    return _OTHER if getattr(predictive, "has_density", True) else _MOMENTS


@partial(jax.jit, static_argnames="chosen")
def _values(predictive: Predictive, targets: Targets, weights: Any, chosen: tuple[Metric, ...]) -> list[jax.Array]:
    return [metric(predictive, targets, weights) for metric in chosen]
