"""Predictions and targets that come from anywhere, as float64 on the host."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Predictive(Protocol):
    """The part of a predictive of classes that is taken in place of arrays."""

    @property
    def probs(self) -> Any: ...


def is_of_classes(value: Any) -> bool:
    """Whether a value is a predictive and no array.

    Raises:
        TypeError: a predictive of something else than classes.
    """
    if not hasattr(type(value), "is_classification"):
        return False
    if not value.is_classification:
        raise TypeError("the predictive is not of classes; give one with probs")
    return True


def probabilities_of(name: str, values: Any) -> np.ndarray:
    """Class probabilities (N, C), float64, of an array or of a predictive.

    Raises:
        TypeError: no numbers.
        ValueError: another shape, no row, or rows that are no probabilities.
    """
    if is_of_classes(values):
        probs = np.asarray(values.probs, np.float64)
        values = np.stack([1 - probs, probs], -1) if probs.ndim == 1 else probs
    array = numbers_of(name, values, 2)
    wrong = (array < 0).any(1) | (np.abs(array.sum(1) - 1) > 1e-2)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name} has {int(wrong.sum())} of {len(array)} rows that are not probabilities (row {row}: smallest "
            f"{array[row].min():.3g}, sum {array[row].sum():.3g}); give the probs of a predictive"
        )
    return array


def numbers_of(name: str, values: Any, ndim: int) -> np.ndarray:
    """Finite numbers with a leading axis of examples, float64.

    Raises:
        TypeError: no numbers.
        ValueError: another number of axes, no row, or numbers that are not finite.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a {type(values).__name__}; give an array of numbers") from error
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} has shape {array.shape}; give {'(N,)' if ndim == 1 else '(N, C)'}, N at least 1")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite in {int((~np.isfinite(array)).sum())} of {array.size} places")
    return array


def labels_of(name: str, values: Any, num: int, num_classes: int) -> np.ndarray:
    """Labels (num,) in 0 .. C - 1.

    Raises:
        TypeError: labels that are no integers.
        ValueError: another number of them, or labels outside the classes.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name} has dtype {array.dtype}, but labels are integers; convert them with astype(int)")
    if array.shape != (num,):
        raise ValueError(f"{name} has shape {array.shape}; give one label for each of the {num} rows")
    if array.min() < 0 or array.max() >= num_classes:
        raise ValueError(f"{name} are from {array.min()} to {array.max()}; there are classes 0 to {num_classes - 1}")
    return array.astype(int)


def same_length(name: str, values: np.ndarray, other: str, num: int) -> np.ndarray:
    """The values, where there are ``num``.

    Raises:
        ValueError: another number.
    """
    if len(values) != num:
        raise ValueError(f"{name} is of {len(values)} examples and {other} of {num}; give both of the same examples")
    return values
