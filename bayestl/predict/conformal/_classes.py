"""Sets of classes that hold the right one with a given probability."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._generator import generator
from bayestl._types import Key, Numbers, Scalar
from bayestl.predict._given import labels_of, probabilities_of
from bayestl.predict.conformal._quantile import Thresholds, check_level

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Probabilities (N, C) and uniform numbers (N,) to a score of every class, (N, C): low for classes that fit."""


@dataclasses.dataclass(frozen=True)
class ClassSets:
    """From probabilities to sets of classes. Made by :func:`classes`.

    Attributes:
        score: of every class of an example.
        thresholds: classes whose score is not above it belong to the set.
        key: of the random numbers of new examples, or None where the score needs none.
    """

    score: Score
    thresholds: Thresholds
    key: Key | None

    def __call__(self, probabilities: Numbers, *, groups: Any = None, weights: Any = None) -> np.ndarray:
        """Which classes belong to the set of each example, (B, C), true or false.

        Args:
            probabilities: (B, C).
            groups: (B,), where the sets were calibrated by group.
            weights: (B,) likelihood ratios, where they were calibrated with such.
        """
        given = probabilities_of("probabilities", probabilities)
        uniform = _uniform(self.key, len(given), 1)
        return self.score(given, uniform) <= self.thresholds(len(given), groups, weights)[:, None]


def classes(
    probabilities: Numbers,
    labels: Numbers,
    *,
    level: Scalar = 0.9,
    score: Callable[..., np.ndarray] | None = None,
    key: Key | None = None,
    groups: Any = None,
    weights: Any = None,
) -> ClassSets:
    """Sets that hold the right class with probability ``level``, however wrong the probabilities are.

    Split conformal prediction: scores of the right classes of calibration examples, which the model has not seen, give
    a threshold; a new example's set are all classes whose score is not above it. The promise is about new examples that
    are exchangeable with the calibration ones, on average over both.

    Args:
        probabilities: (N, C), of the calibration examples.
        labels: (N,), their classes.
        level: of the coverage, between 0 and 1.
        score: None for ``1 - p``, whose sets are smallest on average; :func:`adaptive`, whose sets are larger where it
            is harder; :func:`regularized`, the same with a limit to their size.
        key: randomness of the last two scores, which makes coverage exact; without one they count the whole class, and
            the sets are a little larger.
        groups: (N,), names of groups, each of which is to have the coverage (Mondrian): thresholds are its own. Groups
            of the labels themselves, class by class, are not of this kind, since the class is not known.
        weights: (N,), ratios of the density of inputs, new over calibration, under a covariate shift that is known.

    Returns:
        A :class:`ClassSets`.

    Raises:
        ValueError: rows that are no probabilities, labels outside the classes, numbers out of range.

    References:
        Vovk, Gammerman and Shafer, Algorithmic learning in a random world, 2005; Sadinle, Lei and Wasserman, Least
        ambiguous set-valued classifiers with bounded error levels, 2019; Tibshirani et al., Conformal prediction under
        covariate shift, 2019.

    Example:
        >>> probabilities = [[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]
        >>> sets = btl.predict.conformal.classes(probabilities, [0, 1, 1, 2], level=0.5)
        >>> sets([[0.45, 0.5, 0.05]]).tolist()
        [[True, True, False]]
    """
    check_arguments(classes, locals())
    given = probabilities_of("probabilities", probabilities)
    right = labels_of("labels", labels, *given.shape)
    score = inverse_probability if score is None else score
    every = score(given, _uniform(key, len(given), 0))
    return ClassSets(score, Thresholds(every[np.arange(len(given)), right], check_level(level), groups, weights), key)


def inverse_probability(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """``1 - p_c``; the random numbers are not used."""
    return 1 - probabilities


def adaptive(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """The probability of all classes before this one, in order of probability, and a random part of its own (APS).

    Reference:
        Romano, Sesia and Candes, Classification with valid and adaptive coverage, 2020.
    """
    return _before(probabilities)[0] + uniform[:, None] * probabilities


@dataclasses.dataclass(frozen=True)
class _Regularized:
    penalty: float
    free: int

    def __call__(self, probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        before, rank = _before(probabilities)
        beyond = np.maximum(rank + 1 - self.free, 0)
        return before + uniform[:, None] * probabilities + self.penalty * beyond


def regularized(*, penalty: Scalar = 0.01, free: int = 5) -> Score:
    """The adaptive score with a penalty for each rank beyond the first ``free``, so that sets do not get long (RAPS).

    Args:
        penalty: lambda >= 0, in units of probability.
        free: ranks without a penalty, at least 0.

    Raises:
        ValueError: numbers out of range.

    References:
        Angelopoulos et al., Uncertainty sets for image classifiers using conformal prediction, 2021, algorithm 2.

    Example:
        >>> score = btl.predict.conformal.regularized(penalty=0.1, free=1)
        >>> score(np.array([[0.6, 0.3, 0.1]]), np.ones(1)).round(2).tolist()
        [[0.6, 1.0, 1.2]]
    """
    check_arguments(regularized, locals())
    if not float(penalty) >= 0 or free < 0:
        raise ValueError(f"penalty is {penalty} and free is {free}; both must be at least 0")
    return _Regularized(float(penalty), free)


def _before(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of all classes that come before each, and its rank from 0 on; equal ones in order of class."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, 1)
    rank = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(np.cumsum(ordered, 1) - ordered, rank, 1), rank


def _uniform(key: Key | None, num: int, part: int) -> np.ndarray:
    """Uniform numbers (num,), ones where there is no key; those of calibration and of new examples are others."""
    return np.ones(num) if key is None else generator(key, part).random(num)
