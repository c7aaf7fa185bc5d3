"""The threshold that new scores stay below with a given probability, whatever their distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def check_level(level: Any) -> float:
    """A coverage between 0 and 1.

    Raises:
        ValueError: out of range.
    """
    if not 0 < float(level) < 1:
        raise ValueError(f"level is {level}; a coverage lies between 0 and 1, both excluded")
    return float(level)


def threshold(scores: np.ndarray, level: float) -> float:
    """The ``ceil((n + 1) level)``-th smallest of n scores; infinite where n is too small for that level."""
    # (n + 1) level may lie a rounding above the whole number that it stands for.
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return math.inf if rank > len(scores) else float(np.sort(scores)[rank - 1])


def weighted_thresholds(scores: np.ndarray, weights: np.ndarray, level: float, new: np.ndarray) -> np.ndarray:
    """For each new example the smallest score s with ``sum_i w_i [s_i <= s] >= level (sum_i w_i + w_new)``.

    Infinite where all weights together are less than that. With equal weights it is :func:`threshold`.
    """
    order = np.argsort(scores, kind="stable")
    total = np.cumsum(weights[order])
    needed = level * (total[-1] + new)
    places = np.searchsorted(total, needed - 1e-9 * total[-1])
    return np.append(scores[order], math.inf)[places]


class Thresholds:
    """Thresholds of all examples together, of each group by itself, or by the weights of new examples.

    Args:
        scores: (N,), of the calibration examples.
        level: of the coverage.
        groups: (N,) names, or None.
        weights: (N,) likelihood ratios, or None.
    """

    def __init__(self, scores: np.ndarray, level: float, groups: Any = None, weights: Any = None):
        if groups is not None and weights is not None:
            raise ValueError("give groups or weights, not both: a group's examples are taken to be alike")
        self.scores, self.level = scores, level
        self.weights = None if weights is None else _positive("weights", weights, len(scores))
        self.by_group: dict[Any, float] | None = None
        if groups is not None:
            names = _per_example("groups", groups, len(scores))
            self.by_group = {name.item(): threshold(scores[names == name], level) for name in np.unique(names)}

    def __call__(self, num: int, groups: Any = None, weights: Any = None) -> np.ndarray:
        """Thresholds of ``num`` new examples, (num,).

        Raises:
            ValueError: groups or weights that are missing, unexpected, or not of these examples; an unknown group.
        """
        for name, given, expected in (
            ("groups", groups, self.by_group is not None),
            ("weights", weights, self.weights is not None),
        ):
            if (given is not None) != expected:
                verb = "were calibrated with" if expected else "were calibrated without"
                raise ValueError(f"the sets {verb} {name}; give {name} {'too' if expected else 'in neither place'}")
        if self.by_group is not None:
            names = [name.item() for name in _per_example("groups", groups, num)]
            unknown = sorted(set(names) - set(self.by_group), key=str)
            if unknown:
                raise ValueError(
                    f"groups {unknown} had no calibration example; there are {sorted(self.by_group, key=str)}"
                )
            return np.array([self.by_group[name] for name in names])
        if self.weights is not None:
            return weighted_thresholds(self.scores, self.weights, self.level, _positive("weights", weights, num))
        return np.full(num, threshold(self.scores, self.level))


def _per_example(name: str, values: Any, num: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (num,):
        raise ValueError(f"{name} has shape {array.shape}; give one for each of the {num} examples")
    return array


def _positive(name: str, values: Any, num: int) -> np.ndarray:
    array = _per_example(name, values, num).astype(np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all() and array.sum() > 0):
        raise ValueError(f"{name} must be finite, at least 0, and not all 0: ratios of densities, new over calibration")
    return array
