"""Scores and losses of examples as float64 on the host."""

from __future__ import annotations

from typing import Any

import numpy as np


def vector(name: str, values: Any, at_least: int = 1) -> np.ndarray:
    """One number per example, (N,), float64.

    Raises:
        ValueError: another shape, too few numbers, or NaN; infinite ones may be ranked.
        TypeError: what is no array of numbers.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a {type(values).__name__}; give one number per example") from error
    if array.ndim != 1 or len(array) < at_least:
        fewest = "" if at_least == 1 else f", of at least {at_least} examples"
        raise ValueError(f"{name} has shape {array.shape}; give one number per example, (N,){fewest}")
    if np.isnan(array).any():
        raise ValueError(f"{name} is NaN for {int(np.isnan(array).sum())} of {len(array)} examples")
    return array


def probability(name: str, value: Any) -> float:
    """A number between 0 and 1, both excluded.

    Raises:
        ValueError: out of range.
    """
    if not 0 < float(value) < 1:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1, both excluded")
    return float(value)
