"""What scores are computed from, checked and brought to float64 on the host."""

from __future__ import annotations

from typing import Any

import numpy as np


def checked_features(features: Any) -> np.ndarray:
    """Features as (N, D) in float64.

    Raises:
        ValueError: not two axes, fewer than 2 examples, or values that are not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(
            f"features has shape {features.shape}; give one row per example, (N, D): average over positions, or "
            "reshape, first"
        )
    num, size = features.shape
    if num < 2 or not size:
        raise ValueError(f"features has shape {features.shape}; at least 2 examples and 1 feature are needed")
    bad = int(np.sum(~np.isfinite(features)))
    if bad:
        raise ValueError(f"features has {bad} non-finite of {features.size} values")
    return features


def checked_columns(targets: Any, num: int) -> np.ndarray:
    """Real targets as columns (N, M) in float64.

    Raises:
        ValueError: another number of rows, more than two axes, or values that are not finite.
    """
    columns = np.asarray(targets, np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or len(columns) != num:
        raise ValueError(f"targets has shape {np.shape(targets)}; give ({num},) or ({num}, M)")
    if not np.all(np.isfinite(columns)):
        raise ValueError("targets has non-finite values")
    return columns


def checked_labels(labels: Any, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels as places among the classes that occur, (N,), and those classes, in ascending order.

    Raises:
        ValueError: not (N,), or one class alone.
        TypeError: labels that are not whole numbers.
    """
    labels = np.asarray(labels)
    if labels.shape != (num,):
        raise ValueError(f"labels has shape {labels.shape}; give one class per row of features, ({num},)")
    if not is_classes(labels):
        raise TypeError(f"labels has dtype {labels.dtype}; give classes as whole numbers")
    classes, places = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels holds one class alone, {classes[0]}; a score needs examples of at least 2")
    return places, classes


def checked_probabilities(probabilities: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the source's classes, (N, K), rows normalised; and the labels as places among theirs.

    Raises:
        ValueError: not (N, K), negative or non-finite values, rows that do not sum to 1 within 1e-3.
        TypeError: labels that are not whole numbers.
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not probabilities.size:
        raise ValueError(
            f"probabilities has shape {probabilities.shape}; give the source's probabilities, one row per example, "
            "(N, K)"
        )
    if not np.all(np.isfinite(probabilities)) or np.any(probabilities < 0):
        raise ValueError("probabilities has negative or non-finite values; give a softmax of the source's outputs")
    sums = probabilities.sum(axis=1)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > 1e-3:
        raise ValueError(
            f"row {worst} of probabilities sums to {sums[worst]:.4g} and not to 1; give a softmax of the source's "
            "outputs, not the outputs"
        )
    places, _ = checked_labels(labels, len(probabilities))
    return probabilities / sums[:, None], places


def one_hot(places: np.ndarray) -> np.ndarray:
    """(N, C) of 0 and 1."""
    return np.eye(int(places.max()) + 1)[places]


def is_classes(targets: Any) -> bool:
    """Whether targets are classes (whole numbers) and not numbers to be regressed on."""
    return np.asarray(targets).dtype.kind in "iub"
