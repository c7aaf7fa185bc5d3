"""Quantiles of real targets at levels that are right."""

from __future__ import annotations

import dataclasses

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Scalar
from bayestl.predict._given import numbers_of


@dataclasses.dataclass(frozen=True)
class LevelMap:
    """From the level that is meant to the level to ask a predictive for. Made by :func:`levels`.

    Attributes:
        transforms: (N + 2,), the held-out transforms, ascending, between 0 and 1.
    """

    transforms: np.ndarray

    def __call__(self, level: Scalar) -> float:
        """The level at which the predictive's quantile has the targets below it with probability ``level``.

        Raises:
            ValueError: a level that is not between 0 and 1.
        """
        if not 0 < float(level) < 1:
            raise ValueError(f"level is {level}; it lies between 0 and 1, both excluded")
        return float(np.interp(float(level), self._shares(), self.transforms))

    def probability(self, transforms: Numbers) -> np.ndarray:
        """The probability of targets below, (B,), from what the predictive says of it, its cdf (B,)."""
        return np.interp(_between("transforms", transforms), self.transforms, self._shares())

    def _shares(self) -> np.ndarray:
        return np.linspace(0, 1, len(self.transforms))


def levels(transforms: Numbers) -> LevelMap:
    """The level to ask for so that a quantile is right, from the transforms of held-out targets.

    Where the predictive is too sure, targets lie below its quantile at .95 less often than that, and the map says to
    ask for the quantile at .99, say. The k-th smallest of N transforms is the level k / (N + 1), with lines between; so
    that for new targets, exchangeable with the held-out ones, the probability is right on average.

    Args:
        transforms: (N,), of :func:`metrics.pit`, for examples that the model has not seen. All outputs together:
            ``.ravel()``.

    Raises:
        ValueError: another shape, or numbers outside 0 to 1.

    References:
        Kuleshov, Fenner and Ermon, Accurate uncertainties for deep learning using calibrated regression, 2018,
        algorithm 1.

    Example:
        >>> right = btl.predict.calibrate.levels([0.1, 0.5, 0.9])  # a quarter of the targets lie below the level .1
        >>> right(0.25), right(0.5)
        (0.1, 0.5)
    """
    check_arguments(levels, locals())
    inside = np.sort(_between("transforms", transforms))
    return LevelMap(np.concatenate([[0.0], inside, [1.0]]))


def _between(name: str, values: Numbers) -> np.ndarray:
    array = numbers_of(name, values, 1)
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"{name} are from {array.min():.3g} to {array.max():.3g}; give what metrics.pit gives")
    return array
