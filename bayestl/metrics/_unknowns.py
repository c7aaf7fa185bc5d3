"""Scores of how little an example is like those of the task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg
from scipy.special import logsumexp

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Scalar

Scorer = Callable[[Numbers], np.ndarray]
"""Features (B, F) to scores (B,), higher for what is less like the task."""


def energy(logits: Numbers, *, temperature: Scalar = 1.0) -> np.ndarray:
    """``-T log sum_c exp(f_c / T)``, (B,): high where no logit is.

    Args:
        logits: (B, C), raw outputs of one network.
        temperature: T > 0.

    Raises:
        ValueError: logits of another shape; a temperature that is not above 0.

    References:
        Liu et al., Energy-based out-of-distribution detection, 2020, equation 4.

    Example:
        >>> print(btl.metrics.energy([[0.0, 0.0], [5.0, 0.0]]).round(3))
        [-0.693 -5.007]
    """
    check_arguments(energy, locals())
    if not float(temperature) > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    values = _matrix("logits", logits)
    return -float(temperature) * logsumexp(values / float(temperature), axis=1)


def mahalanobis(features: Numbers, labels: Numbers, *, relative: bool = False, shrinkage: float = 1e-6) -> Scorer:
    """A score from the distances of features to the means of the classes, in units of the spread within classes.

    ``min_c (x - mean_c)^T S^-1 (x - mean_c)`` with one S for all classes; ``relative`` takes away the same distance to
    the mean of all examples under their whole covariance, which helps where unknowns are near.

    Args:
        features: (N, F), of the training examples: what comes into the last layer.
        labels: (N,), integers.
        relative: take away the distance to all examples.
        shrinkage: S + shrinkage * mean variance * I, > 0, so that fewer examples than features will do.

    Returns:
        Features (B, F) to scores (B,).

    Raises:
        ValueError: shapes that do not belong together, or features that do not vary.

    References:
        Lee et al., A simple unified framework for detecting out-of-distribution samples, 2018; Ren et al., A simple fix
        to Mahalanobis distance for improving near-OOD detection, 2021.

    Example:
        >>> score = btl.metrics.mahalanobis([[0.0], [1.0], [10.0], [11.0]], [0, 0, 1, 1])
        >>> print(score([[0.5], [5.5]]).round(2))
        [  0. 100.]
    """
    check_arguments(mahalanobis, locals())
    values, classes = _matrix("features", features), np.asarray(labels)
    if classes.shape != values.shape[:1]:
        raise ValueError(f"labels have shape {classes.shape} and features {values.shape}; give one label per example")
    if not shrinkage > 0:
        raise ValueError(f"shrinkage is {shrinkage}; it must be above 0")
    names, numbers = np.unique(classes, return_inverse=True)
    means = np.stack([values[numbers == number].mean(0) for number in range(len(names))])
    within = _whitening(values - means[numbers], shrinkage)
    if not relative:
        return _Mahalanobis(means, within, None, None)
    middle = values.mean(0, keepdims=True)
    return _Mahalanobis(means, within, middle, _whitening(values - middle, shrinkage))


def nearest_neighbours(features: Numbers, *, num_neighbours: int = 10, normalize: bool = True) -> Scorer:
    """A score that is the distance to the k-th nearest training example.

    Args:
        features: (N, F), of the training examples.
        num_neighbours: k, 1 to N.
        normalize: features to length 1 first, as in the paper.

    Returns:
        Features (B, F) to scores (B,).

    Raises:
        ValueError: features of another shape, or k out of range.

    References:
        Sun et al., Out-of-distribution detection with deep nearest neighbors, 2022.

    Example:
        >>> score = btl.metrics.nearest_neighbours([[0.0], [1.0], [2.0]], num_neighbours=2, normalize=False)
        >>> score([[0.0], [4.0]]).tolist()
        [1.0, 3.0]
    """
    check_arguments(nearest_neighbours, locals())
    values = _matrix("features", features)
    if not 1 <= num_neighbours <= len(values):
        raise ValueError(f"num_neighbours is {num_neighbours}; give 1 to {len(values)}, the number of examples")
    # Imported here, since it takes a tenth of a second.
    from scipy.spatial import KDTree

    return _Neighbours(KDTree(_unit(values) if normalize else values), num_neighbours, normalize)


@dataclasses.dataclass(frozen=True)
class _Mahalanobis:
    means: np.ndarray
    within: np.ndarray
    middle: np.ndarray | None
    whole: np.ndarray | None

    def __call__(self, features: Numbers) -> np.ndarray:
        values = _same_width(features, self.means.shape[1])
        scores = _squared_distances(values @ self.within, self.means @ self.within).min(1)
        if self.middle is None or self.whole is None:
            return scores
        return scores - _squared_distances(values @ self.whole, self.middle @ self.whole)[:, 0]


@dataclasses.dataclass(frozen=True)
class _Neighbours:
    tree: Any
    num_neighbours: int
    normalize: bool

    def __call__(self, features: Numbers) -> np.ndarray:
        values = _same_width(features, self.tree.m)
        distances = self.tree.query(_unit(values) if self.normalize else values, k=[self.num_neighbours])[0]
        return distances[:, 0]


def _whitening(centred: np.ndarray, shrinkage: float) -> np.ndarray:
    """W with ``W W^T = S^-1``."""
    covariance = centred.T @ centred / len(centred)
    size = np.trace(covariance) / len(covariance)
    if not size > 0:
        raise ValueError("features do not vary, so that there is no distance in units of their spread")
    root = linalg.cholesky(covariance + shrinkage * size * np.eye(len(covariance)), lower=True)
    return linalg.solve_triangular(root, np.eye(len(root)), lower=True).T


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([((a - row) ** 2).sum(1) for row in b], 1)


def _unit(values: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1.0)


def _matrix(name: str, values: Numbers) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a {type(values).__name__}; give numbers, one row per example") from error
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} has shape {array.shape}; give one row of numbers per example, (N, F)")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite for {int((~np.isfinite(array)).any(1).sum())} of {len(array)} examples")
    return array


def _same_width(features: Numbers, width: int) -> np.ndarray:
    values = _matrix("features", features)
    if values.shape[1] != width:
        raise ValueError(f"features have {values.shape[1]} columns, but those of the training examples had {width}")
    return values
