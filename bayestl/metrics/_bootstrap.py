"""A standard error and an interval for any number computed from examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._generator import generator
from bayestl._types import Key, Scalar
from bayestl.metrics._numbers import probability


class Estimate(NamedTuple):
    """A number with what is known about it. Made by :func:`bootstrap`.

    Attributes:
        value: of the examples as they are.
        standard_error: the standard deviation over resampled examples.
        interval: percentiles of the resampled values.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]


def bootstrap(
    key: Key,
    statistic: Callable[..., Any],
    *samples: Any,
    num_bootstrap: int = 1000,
    level: Scalar = 0.95,
) -> Estimate:
    """A statistic of examples with its standard error: what it would have been on other examples.

    Args:
        key: of the resampling.
        statistic: ``(*samples) -> number``; given the samples with some examples twice, others not at all.
        *samples: each a sample of its own, an array (N, ...) or a tuple of arrays of the same N examples, which stay
            together. ``bootstrap(key, auroc, scores_in, scores_out)`` resamples both kinds;
            ``bootstrap(key, lambda both: aurc(*both), (confidence, losses))`` examples with both of their numbers.
        num_bootstrap: how often to resample, at least 2.
        level: probability of the interval.

    Raises:
        ValueError: no sample, an empty one, arrays of other lengths, numbers out of range.

    References:
        Efron and Tibshirani, An introduction to the bootstrap, 1993, chapters 6 and 13.

    Example:
        >>> made = btl.metrics.bootstrap(jax.random.key(0), np.mean, np.arange(100.0))
        >>> made.value, round(made.standard_error)
        (49.5, 3)
    """
    check_arguments(bootstrap, locals())
    probability("level", level)
    if num_bootstrap < 2:
        raise ValueError(f"num_bootstrap is {num_bootstrap}; it must be at least 2")
    if not samples:
        raise ValueError("bootstrap was given no sample; give at least one array with one row per example")
    arrays = [tuple(map(np.asarray, each)) if isinstance(each, tuple) else (np.asarray(each),) for each in samples]
    for number, each in enumerate(arrays):
        lengths = {array.shape[:1] for array in each}
        if len(lengths) != 1 or lengths & {(), (0,)}:
            shapes = ", ".join(str(array.shape) for array in each)
            raise ValueError(f"sample {number} has shapes {shapes}; give one row per example, at least one")

    def of(rows: list[np.ndarray]) -> float:
        chosen = [tuple(array[row] for array in each) for each, row in zip(arrays, rows, strict=True)]
        return float(statistic(*(c if isinstance(s, tuple) else c[0] for c, s in zip(chosen, samples, strict=True))))

    rng = generator(key)
    lengths = [len(each[0]) for each in arrays]
    values = np.array([of([rng.integers(n, size=n) for n in lengths]) for _ in range(num_bootstrap)])
    low, high = np.nanquantile(values, [0.5 - float(level) / 2, 0.5 + float(level) / 2])
    return Estimate(of([np.arange(n) for n in lengths]), float(np.nanstd(values, ddof=1)), (float(low), float(high)))
