"""All metrics that apply, at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from bayestl.metrics._accuracy import accuracy, macro_accuracy
from bayestl.metrics._calibration import ece, ece_equal_mass
from bayestl.metrics._examples import Predictive
from bayestl.metrics._regression import crps, interval_coverage, rmse
from bayestl.metrics._scores import brier, nll

_CLASSIFICATION = (accuracy, macro_accuracy, nll, brier, ece, ece_equal_mass)
_NORMAL = (nll, rmse, crps, interval_coverage)
_OTHER = (nll, rmse)


def report(predictive: Predictive, targets: Any, mask: Any = None) -> dict[str, float]:
    """The metrics that apply to a predictive, by name, each with its default setting.

    Classes: accuracy, macro_accuracy, nll, brier, ece and ece_equal_mass (15 bins). Mixtures of normals: nll, rmse,
    crps, interval_coverage (level 0.9). Everything else: nll, rmse.

    Args:
        predictive: of any kind.
        targets: (B, ...).
        mask: None, or (B,), 1 for a real example and 0 for padding.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
        >>> list(btl.metrics.report(given, jnp.array([1, 0])))
        ['accuracy', 'macro_accuracy', 'nll', 'brier', 'ece', 'ece_equal_mass']
    """
    chosen = _CLASSIFICATION if predictive.is_classification else _NORMAL if predictive.is_normal else _OTHER
    values = _evaluate(predictive, targets, mask, chosen)
    return {metric.__name__: float(value) for metric, value in zip(chosen, values, strict=True)}


@partial(jax.jit, static_argnames="chosen")
def _evaluate(predictive: Predictive, targets: Any, mask: Any, chosen: tuple[Callable, ...]) -> list[jax.Array]:
    return [metric(predictive, targets, mask) for metric in chosen]
