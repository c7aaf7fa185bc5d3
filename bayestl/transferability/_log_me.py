"""LogME: the evidence of a linear model of the labels, with both of its variances at their best."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.transferability._checks import checked_columns, checked_features, checked_labels, is_classes, one_hot

_STARTS = np.geomspace(1e-12, 1e12, 97)
_FLOOR = 1e-14


def log_me(features: Numbers, targets: Numbers) -> float:
    """The log evidence per example of a linear model of the targets, at its best weight variance and noise.

    ``max over alpha, beta of log N(y; 0, F F^T / alpha + I / beta) / N``, the mean over the columns of y: one per class
    (of 0 and 1), or one per number regressed on. Larger is better. With lam = alpha / beta, m the posterior mean of the
    weights and gamma = sum_j s_j^2 / (s_j^2 + lam), s the singular values of F, the maximum is a fixed point of

    ``lam = gamma / (N - gamma) |F m - y|^2 / |m|^2``

    which is iterated from the best point of a coarse grid, since there may be several.

    Args:
        features: F, of the target's inputs, (N, D). As in the paper neither centred nor given a constant.
        targets: classes, whole numbers (N,); or numbers, (N,) or (N, M). A class with no example has no column.

    Returns:
        Nats per example. Where features of lower rank than N fit a column exactly, no noise is too small; it is
        bounded at 1e-14 of that column's mean square.

    Raises:
        ValueError: shapes that differ, one class alone, a column of zeros, non-finite values.

    Reference:
        You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning"; the fixed point is
        MacKay's, in the form of You et al. 2022, "Ranking and Tuning Pre-trained Models".

    Example:
        >>> value = btl.transferability.log_me([[1.0], [1.0], [-1.0], [-1.0]], [1.1, 0.9, -1.0, -1.0])
        >>> print(round(value, 3))
        0.287
    """
    check_arguments(log_me, locals())
    features = checked_features(features)
    columns = _columns(targets, len(features))
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    return float(np.mean([_best(left, singular, column) for column in columns.T]))


def _columns(targets: Any, num: int) -> np.ndarray:
    if is_classes(targets):
        return one_hot(checked_labels(targets, num)[0])
    columns = checked_columns(targets, num)
    zeros = np.flatnonzero(~np.any(columns, axis=0))
    if len(zeros):
        raise ValueError(f"column {zeros[0]} of targets is zero throughout, which has no evidence; leave it out")
    return columns


def _best(left: np.ndarray, singular: np.ndarray, target: np.ndarray) -> float:
    """The evidence of one column per example, over all lam."""
    num, along = len(target), left.T @ target
    squares, total = singular**2, float(target @ target)
    unreached = max(total - float(along @ along), 0.0)
    if not squares[0] > 0:
        return _evidence(math.inf, squares, along, unreached, num, total)
    grid = _STARTS * squares[0]
    values = [_evidence(lam, squares, along, unreached, num, total) for lam in grid]
    best, lam = max(values), float(grid[int(np.argmax(values))])
    for _ in range(200):
        gamma = np.sum(squares / (squares + lam))
        residual = np.sum((along * lam / (squares + lam)) ** 2) + unreached
        length = np.sum(squares * (along / (squares + lam)) ** 2)
        if not (length > 0 and gamma < num):
            break
        new = float(gamma / (num - gamma) * residual / length)
        if not grid[0] <= new <= grid[-1] or abs(new - lam) <= 1e-12 * lam:
            break
        lam = new
        best = max(best, _evidence(lam, squares, along, unreached, num, total))
    return best


def _evidence(lam: float, squares: np.ndarray, along: np.ndarray, unreached: float, num: int, total: float) -> float:
    """``log N(y; 0, (I + F F^T / lam) / beta) / N`` at the best beta, which is N over the energy."""
    energy = max(float(np.sum(along**2 / (1 + squares / lam)) + unreached), _FLOOR * total)
    half_log_det = 0.5 * float(np.sum(np.log1p(squares / lam)))
    return 0.5 * (math.log(num / energy) - 1 - math.log(2 * math.pi)) - half_log_det / num
