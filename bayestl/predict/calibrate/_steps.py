"""Maps of probabilities that are steps: isotonic, and by bins."""

from __future__ import annotations

import abc
import dataclasses

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.predict._given import Predictive, labels_of, probabilities_of


@dataclasses.dataclass(frozen=True)
class _ClassByClass(abc.ABC):
    """Each class's probability by a function of its own, and then rows that sum to 1.

    Attributes:
        places: of each class, ascending probabilities.
        values: of each class, what they stand for.
    """

    places: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]

    def __call__(self, probabilities: Numbers | Predictive) -> np.ndarray:
        """Probabilities (B, C) of probabilities (B, C), or of a predictive."""
        given = probabilities_of("probabilities", probabilities)
        if given.shape[1] != len(self.places):
            raise ValueError(f"there are {given.shape[1]} classes here, but {len(self.places)} where it was fitted")
        columns = np.stack([self._column(*each) for each in zip(given.T, self.places, self.values, strict=True)], 1)
        total = columns.sum(1, keepdims=True)
        return np.where(total > 0, columns / np.where(total > 0, total, 1.0), 1 / columns.shape[1])

    @abc.abstractmethod
    def _column(self, column: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The function of one class."""


@dataclasses.dataclass(frozen=True)
class StepMap(_ClassByClass):
    """Each class's probability by a step function, whose steps begin at ``places``. Made by :func:`histogram`."""

    def _column(self, column: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        return values[np.clip(np.searchsorted(places, column, side="right") - 1, 0, len(values) - 1)]


@dataclasses.dataclass(frozen=True)
class LineMap(_ClassByClass):
    """Each class's probability by lines between ``places``. Made by :func:`isotonic`."""

    def _column(self, column: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.interp(column, places, values)


def isotonic(probabilities: Numbers | Predictive, labels: Numbers) -> LineMap:
    """Each class's probability by the increasing function that is nearest to what was right, class against the rest.

    It takes any shape and so needs many examples; it may give probabilities of 0.

    Args:
        probabilities: (N, C), of held-out examples, or a predictive.
        labels: (N,).

    Raises:
        ValueError: rows that are no probabilities, labels outside the classes.

    References:
        Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability estimates, 2002.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8]])
        >>> btl.predict.calibrate.isotonic(probabilities, [0, 1, 0, 1])(probabilities[:2]).round(2).tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    check_arguments(isotonic, locals())
    # Imported here, since it takes a tenth of a second.
    from scipy.optimize import isotonic_regression

    given = probabilities_of("probabilities", probabilities)
    right = labels_of("labels", labels, *given.shape)
    places, values = [], []
    for number, column in enumerate(given.T):
        place, run = np.unique(column, return_inverse=True)
        count = np.bincount(run)
        share = np.bincount(run, right == number) / count
        places.append(place)
        values.append(isotonic_regression(share, weights=count).x)
    return LineMap(tuple(places), tuple(values))


def histogram(probabilities: Numbers | Predictive, labels: Numbers, *, num_bins: int = 15) -> StepMap:
    """Each class's probability replaced by how often it was right among those of about the same probability.

    Bins hold equally many examples. A bin that held n examples of which k were right gives ``(k + 1/C) / (n + 1)``, so
    that nothing becomes impossible.

    Args:
        probabilities: (N, C), of held-out examples, or a predictive.
        labels: (N,).
        num_bins: of each class, 1 to N.

    Raises:
        ValueError: rows that are no probabilities, labels outside the classes, a number of bins out of range.

    References:
        Zadrozny and Elkan, Obtaining calibrated probability estimates from decision trees and naive Bayesian
        classifiers, 2001.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8]])
        >>> binned = btl.predict.calibrate.histogram(probabilities, [0, 0, 0, 1], num_bins=2)
        >>> binned(probabilities[[0, 3]]).round(3).tolist()
        [[0.833, 0.167], [0.5, 0.5]]
    """
    check_arguments(histogram, locals())
    given = probabilities_of("probabilities", probabilities)
    right = labels_of("labels", labels, *given.shape)
    if not 1 <= num_bins <= len(given):
        raise ValueError(f"num_bins is {num_bins}; give 1 to {len(given)}, the number of examples")
    places, values = [], []
    for number, column in enumerate(given.T):
        # Equal probabilities stay in one bin.
        edges = np.unique(np.sort(column)[np.arange(num_bins) * len(column) // num_bins])
        bins = np.searchsorted(edges, column, side="right") - 1
        count, hits = np.bincount(bins, minlength=len(edges)), np.bincount(bins, right == number, len(edges))
        places.append(edges)
        values.append((hits + 1 / given.shape[1]) / (count + 1))
    return StepMap(tuple(places), tuple(values))
