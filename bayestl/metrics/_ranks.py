"""How well a score tells examples from elsewhere from those of the task."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Scalar
from bayestl.metrics._numbers import probability, vector


def auroc(scores_in: Numbers, scores_out: Numbers) -> float:
    """The probability that an example from elsewhere scores higher than one of the task; ties count half.

    The area under the receiver operating characteristic, elsewhere being the positive class: .5 tells nothing, 1 all.
    float64, on the host; N log N.

    Args:
        scores_in: (N,), of examples of the task; higher is less like it, such as a predictive entropy.
        scores_out: (M,), of examples from elsewhere.

    Raises:
        ValueError: no example, NaN, or other shapes.

    References:
        Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982.

    Example:
        >>> btl.metrics.auroc([0.1, 0.4], [0.4, 0.9])
        0.875
    """
    check_arguments(auroc, locals())
    return area(*_counted(scores_in, scores_out))


def average_precision(scores_in: Numbers, scores_out: Numbers) -> float:
    """The area under the precision-recall curve (AUPR), as the mean precision at each example from elsewhere.

    ``sum_k (recall_k - recall_{k-1}) precision_k`` over the thresholds; elsewhere is the positive class. It depends on
    how many examples there are of each kind: a score that tells nothing has M / (N + M).

    Args:
        scores_in: (N,), of examples of the task.
        scores_out: (M,), of examples from elsewhere, which should be higher.

    Raises:
        ValueError: no example, NaN, or other shapes.

    Example:
        >>> print(f"{btl.metrics.average_precision([0.1, 0.5], [0.4, 0.9]):.4f}")
        0.8333
    """
    check_arguments(average_precision, locals())
    return mean_precision(*_counted(scores_in, scores_out))


def false_positive_rate(scores_in: Numbers, scores_out: Numbers, *, true_positive_rate: Scalar = 0.95) -> float:
    """The share of the task's examples that are taken for others when that share of the others is recognised.

    The highest threshold at or above which at least ``true_positive_rate`` of the examples from elsewhere lie decides;
    at .95 this is known as FPR95.

    Args:
        scores_in: (N,), of examples of the task.
        scores_out: (M,), of examples from elsewhere, which should be higher.
        true_positive_rate: between 0 and 1.

    Raises:
        ValueError: no example, NaN, other shapes, or a rate out of range.

    Example:
        >>> btl.metrics.false_positive_rate([0.1, 0.2, 0.6, 0.3], [0.5, 0.9], true_positive_rate=0.95)
        0.25
    """
    check_arguments(false_positive_rate, locals())
    rate = probability("true_positive_rate", true_positive_rate)
    return share_of_alarms(*_counted(scores_in, scores_out), rate)


def places(scores_in: Numbers, scores_out: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """The place of every score among the distinct ones of both, 0 for the highest, (N,) and (M,)."""
    inside, outside = vector("scores_in", scores_in), vector("scores_out", scores_out)
    place = np.unique(-np.concatenate([inside, outside]), return_inverse=True)[1]
    return place[: len(inside)], place[len(inside) :]


def area(inside: np.ndarray, outside: np.ndarray) -> float:
    """:func:`auroc` of how many examples of each kind have each distinct score, the highest first."""
    below = inside.sum() - np.cumsum(inside)
    return float(np.sum(outside * (below + inside / 2)) / (inside.sum() * outside.sum()))


def mean_precision(inside: np.ndarray, outside: np.ndarray) -> float:
    """:func:`average_precision` of such counts."""
    hits = np.cumsum(outside)
    # Where nothing is above, nothing is hit.
    above = np.maximum(hits + np.cumsum(inside), 1)
    return float(np.sum(outside * hits / above) / hits[-1])


def share_of_alarms(inside: np.ndarray, outside: np.ndarray, rate: float = 0.95) -> float:
    """:func:`false_positive_rate` of such counts."""
    hits = np.cumsum(outside)
    # A product such as .95 * 20 may lie above the whole number that it stands for.
    first = np.searchsorted(hits, np.ceil(rate * hits[-1] - 1e-9))
    return float(np.sum(inside[: first + 1]) / inside.sum())


def _counted(scores_in: Numbers, scores_out: Numbers) -> tuple[np.ndarray, np.ndarray]:
    inside, outside = places(scores_in, scores_out)
    num = 1 + max(inside.max(), outside.max())
    return np.bincount(inside, minlength=num), np.bincount(outside, minlength=num)
