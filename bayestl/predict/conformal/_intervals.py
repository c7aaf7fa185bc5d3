"""Intervals that hold the target with a given probability."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Scalar
from bayestl.predict._given import numbers_of, same_length
from bayestl.predict.conformal._quantile import Thresholds, check_level


@dataclasses.dataclass(frozen=True)
class Intervals:
    """From an interval, or a prediction, to a conformal interval. Made by :func:`intervals` and :func:`quantiles`.

    Attributes:
        thresholds: by how much ends are moved.
    """

    thresholds: Thresholds

    def __call__(
        self,
        low: Numbers,
        high: Numbers | None = None,
        *,
        scale: Numbers | None = None,
        groups: Any = None,
        weights: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the interval of each example, (B,) each.

        Args:
            low: (B,), predictions; or lower ends, with ``high``.
            high: (B,), upper ends.
            scale: (B,), by which widths differ, where the intervals were calibrated with one.
            groups: (B,), where they were calibrated by group.
            weights: (B,) likelihood ratios, where they were calibrated with such.
        """
        lower = numbers_of("low", low, 1)
        upper = lower if high is None else same_length("high", numbers_of("high", high, 1), "low", len(lower))
        moved = self.thresholds(len(lower), groups, weights) * _scale(scale, len(lower))
        return lower - moved, upper + moved


def intervals(
    predictions: Numbers,
    targets: Numbers,
    *,
    level: Scalar = 0.9,
    scale: Numbers | None = None,
    groups: Any = None,
    weights: Any = None,
) -> Intervals:
    """Intervals around predictions that hold the target with probability ``level``: split conformal prediction.

    The score of a calibration example is ``|y - f(x)| / scale``. With the predictive standard deviation for a scale,
    widths follow the uncertainty of the model.

    Args:
        predictions: (N,), means or medians of calibration examples that the model has not seen.
        targets: (N,).
        level: of the coverage, between 0 and 1.
        scale: None for widths that are all the same, or (N,) above 0.
        groups: (N,), names of groups, each of which is to have the coverage (Mondrian).
        weights: (N,), ratios of the density of inputs, new over calibration, under a covariate shift that is known.

    Returns:
        :class:`Intervals`: call it with new predictions, and with their scale where one was given here.

    Raises:
        ValueError: numbers that do not belong to the same examples, are not finite, or out of range.

    References:
        Lei et al., Distribution-free predictive inference for regression, 2018.

    Example:
        >>> around = btl.predict.conformal.intervals([0.0, 0.0, 0.0], [0.1, -0.3, 0.2], level=0.7)
        >>> [end.tolist() for end in around([1.0])]
        [[0.7], [1.3]]
    """
    check_arguments(intervals, locals())
    given, observed = _pair("predictions", predictions, targets)
    scores = np.abs(observed - given) / _scale(scale, len(given))
    return Intervals(Thresholds(scores, check_level(level), groups, weights))


def quantiles(
    low: Numbers, high: Numbers, targets: Numbers, *, level: Scalar = 0.9, groups: Any = None, weights: Any = None
) -> Intervals:
    """Predicted quantiles, moved so that the target lies between them with probability ``level`` (CQR).

    The score is ``max(low - y, y - high)``, negative inside: intervals that are too wide are made narrower.

    Args:
        low: (N,), lower ends for calibration examples, such as ``predictive.quantile(0.05)``.
        high: (N,), upper ends.
        targets: (N,).
        level: of the coverage, between 0 and 1.
        groups: (N,), names of groups, each of which is to have the coverage.
        weights: (N,), ratios of the density of inputs, new over calibration.

    Returns:
        :class:`Intervals`: call it with new lower and upper ends.

    Raises:
        ValueError: numbers that do not belong to the same examples, are not finite, or out of range.

    References:
        Romano, Patterson and Candes, Conformalized quantile regression, 2019.

    Example:
        >>> ends = btl.predict.conformal.quantiles([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.5, 0.5, -1.0], level=0.7)
        >>> [end.tolist() for end in ends([0.0], [1.0])]
        [[-1.0], [2.0]]
    """
    check_arguments(quantiles, locals())
    lower, observed = _pair("low", low, targets)
    upper = same_length("high", numbers_of("high", high, 1), "low", len(lower))
    scores = np.maximum(lower - observed, observed - upper)
    return Intervals(Thresholds(scores, check_level(level), groups, weights))


@dataclasses.dataclass(frozen=True)
class JackknifePlus:
    """From predictions of the models that left examples out to an interval. Made by :func:`jackknife_plus`.

    Attributes:
        residuals: (N,), of each example under the model that has not seen it.
        models: (N,), the number of that model.
        level: of the coverage.
    """

    residuals: np.ndarray
    models: np.ndarray
    level: float

    def __call__(self, predictions: Numbers) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the interval of each example, (B,) each.

        Args:
            predictions: (K, B), of each of the K models (of all N where none was given folds) for new examples.
        """
        given = numbers_of("predictions", predictions, 2)
        if len(given) != self.models.max() + 1:
            raise ValueError(f"predictions are of {len(given)} models, but {self.models.max() + 1} left examples out")
        each = given[self.models]  # (N, B)
        num = len(each)
        rank = int(np.ceil((num + 1) * self.level - 1e-9))
        if rank > num:
            return np.full(given.shape[1], -np.inf), np.full(given.shape[1], np.inf)
        low = np.sort(each - self.residuals[:, None], 0)[num - rank]
        high = np.sort(each + self.residuals[:, None], 0)[rank - 1]
        return low, high


def jackknife_plus(
    left_out: Numbers, targets: Numbers, *, level: Scalar = 0.9, folds: Numbers | None = None
) -> JackknifePlus:
    """Intervals from models that each left some examples out; all examples train and calibrate.

    For any method the coverage is at least ``2 level - 1``, and near ``level`` as a rule.

    Args:
        left_out: (N,), the prediction for each training example by the model that has not seen it.
        targets: (N,).
        level: between 0 and 1.
        folds: None where every example had a model of its own (jackknife+), or (N,) numbers 0 .. K - 1 of the models
            that left them out (CV+).

    Returns:
        A :class:`JackknifePlus`: call it with the predictions of all K models for new examples, (K, B).

    Raises:
        ValueError: numbers that do not belong to the same examples, are not finite, or out of range.

    References:
        Barber et al., Predictive inference with the jackknife+, 2021.

    Example:
        >>> between = btl.predict.conformal.jackknife_plus([1.0, 2.0, 3.0], [1.5, 2.0, 2.0], level=0.5)
        >>> [end.tolist() for end in between([[2.0], [2.1], [2.2]])]
        [[1.5], [2.5]]
    """
    check_arguments(jackknife_plus, locals())
    given, observed = _pair("left_out", left_out, targets)
    models = np.arange(len(given)) if folds is None else np.asarray(folds)
    if models.dtype.kind not in "iu" or models.shape != given.shape or models.min() < 0:
        raise ValueError(f"folds has shape {models.shape} and dtype {models.dtype}; give whole numbers from 0, (N,)")
    return JackknifePlus(np.abs(observed - given), models, check_level(level))


def _pair(name: str, values: Numbers, targets: Numbers) -> tuple[np.ndarray, np.ndarray]:
    given, observed = numbers_of(name, values, 1), numbers_of("targets", targets, 1)
    return given, same_length("targets", observed, name, len(given))


def _scale(scale: Numbers | None, num: int) -> np.ndarray:
    if scale is None:
        return np.ones(num)
    values = same_length("scale", numbers_of("scale", scale, 1), "the predictions", num)
    if not (values > 0).all():
        raise ValueError(f"scale is not above 0 for {int((values <= 0).sum())} of {num} examples")
    return values
