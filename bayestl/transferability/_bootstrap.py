"""Intervals for means, and for whatever else is computed from resampled examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

from bayestl._generator import generator
from bayestl._types import Key

_NUMBERS_AT_ONCE = 2_000_000


def bootstrap_means(key: Key, values: np.ndarray, num_bootstrap: int) -> np.ndarray:
    """Means of examples drawn with replacement, the same draws for every row.

    Args:
        key: randomness of the draws.
        values: (P, N), P quantities of the same N examples.
        num_bootstrap: S, how often to draw N examples.

    Returns:
        (P, S).
    """
    rng, num = generator(key), values.shape[1]
    block = max(1, _NUMBERS_AT_ONCE // max(1, num * len(values)))
    means = [
        values[:, rng.integers(num, size=(min(block, num_bootstrap - start), num))].mean(axis=2)
        for start in range(0, num_bootstrap, block)
    ]
    return np.concatenate(means, axis=1)


def expanded_interval(draws: np.ndarray, num: int, level: float) -> tuple[float, float]:
    """The percentile interval of bootstrap draws, widened for few examples.

    A percentile interval of a mean of N examples is too narrow twice: the bootstrap's variance has divisor N, and its
    quantiles are those of a normal and not of Student's t. So the percentiles are taken at
    ``Phi(-sqrt(N / (N - 1)) t)``, t the quantile of Student's t with N - 1 degrees of freedom.

    Args:
        draws: (S,), of the bootstrap.
        num: N >= 2.
        level: of the interval, between 0 and 1.

    Reference:
        Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 4.3 (the expanded percentile
        interval).
    """
    tail = special.ndtr(-math.sqrt(num / (num - 1)) * special.stdtrit(num - 1, 0.5 + level / 2))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def percentile_interval(draws: Any, level: float) -> tuple[float, float]:
    """The plain percentile interval of those bootstrap draws that are finite; NaN where there are none."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a number between 0 and 1, such as 0.95")
    draws = np.asarray(draws, np.float64)
    draws = draws[np.isfinite(draws)]
    if not draws.size:
        return math.nan, math.nan
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
