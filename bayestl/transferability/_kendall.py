"""Whether a score ranks sources as fine-tuning does."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._generator import generator
from bayestl._types import Key, Numbers
from bayestl.transferability._bootstrap import percentile_interval


class RankCorrelation(NamedTuple):
    """Attributes:
    tau: Kendall's tau-b, from -1 (ranked the other way round) to 1 (ranked alike); NaN where all values tie.
    interval: its bootstrap interval.
    num: how many sources, or source and target pairs, were ranked.
    """

    tau: float
    interval: tuple[float, float]
    num: int


def rank_correlation(
    key: Key, scores: Numbers, results: Numbers, *, groups: Any = None, num_bootstrap: int = 2000, level: float = 0.95
) -> RankCorrelation:
    """Kendall's rank correlation of a score with what fine-tuning then gave, with a bootstrap interval.

    ``tau_b = (concordant - discordant) / sqrt((pairs - ties in x) (pairs - ties in y))``

    Args:
        key: randomness of the bootstrap, which draws sources (or source and target pairs) with replacement. A draw of
            one pair twice is no tie: such pairs are left out.
        scores: (n,), larger for a source that should do better.
        results: (n,), larger for one that did better, such as the test log likelihood.
        groups: None, or (n,), the target of each: then only pairs of one target are compared, since targets differ in
            how hard they are.
        num_bootstrap: draws.
        level: of the interval.

    Raises:
        ValueError: fewer than 3 sources, shapes that differ, NaN.

    Reference:
        Kendall 1945, "The treatment of ties in ranking problems".

    Example:
        >>> result = btl.transferability.rank_correlation(jax.random.key(0), [1, 2, 3, 4], [0.1, 0.3, 0.2, 0.9])
        >>> print(f"{result.tau:.3f}")                                     # 5 pairs agree, 1 does not
        0.667
    """
    check_arguments(rank_correlation, locals())
    x, y = (np.asarray(values, np.float64) for values in (scores, results))
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise ValueError(f"scores and results have shapes {x.shape} and {y.shape}; give two (n,), n at least 3")
    if np.isnan(x).any() or np.isnan(y).any():
        raise ValueError("scores or results has NaN; leave these sources out of both")
    groups = np.zeros(len(x), int) if groups is None else np.asarray(groups)
    if groups.shape != x.shape:
        raise ValueError(f"groups has shape {groups.shape}; give one target per source, {x.shape}")
    same = groups[:, None] == groups
    of_x, of_y = (np.sign(v[:, None] - v) * same for v in (x, y))
    rng, everything = generator(key), np.arange(len(x))
    draws = [_tau(of_x, of_y, same, rng.integers(len(x), size=len(x))) for _ in range(num_bootstrap)]
    return RankCorrelation(_tau(of_x, of_y, same, everything), percentile_interval(draws, level), len(x))


def _tau(x: np.ndarray, y: np.ndarray, same: np.ndarray, rows: np.ndarray) -> float:
    at = np.ix_(rows, rows)
    compared = same[at] & (rows[:, None] != rows)
    x, y = x[at] * compared, y[at] * compared
    norm = math.sqrt(np.sum(x != 0) * np.sum(y != 0))
    return float(np.sum(x * y) / norm) if norm else math.nan
