"""Whether examples of the same confidence are right equally often, wherever they come from."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.metrics._numbers import vector


def grouping_loss(confidence: Numbers, correct: Numbers, regions: Numbers, *, num_bins: int = 15) -> float:
    """What calibration does not see: how far accuracies differ among examples of the same confidence.

    A classifier that says 0.7 for two kinds of examples, and is right for 0.9 of one and 0.5 of the other, is
    calibrated, yet its probabilities are wrong. This is a lower bound of the part of the Brier score that comes of it:
    the variance of the accuracies of regions within bins of equal width,

    ``sum_k n_k/n sum_j n_kj/n_k (accuracy_kj - accuracy_k)^2``,

    less what counting adds to it by chance, and less how the accuracy changes with the confidence itself within each
    bin, by isotonic regression. It is of the event that the answer is right; summed over right and wrong, as the Brier
    score is over classes, it is twice as much. The finer the regions tell kinds apart, the closer the bound. It can be
    slightly negative where there is nothing; give :func:`bootstrap` all three numbers of each example for its standard
    error.

    Args:
        confidence: (N,), the probability of the predicted class.
        correct: (N,), 1 where the answer was right, else 0.
        regions: (N,), whole numbers: which kind an example is of, such as a cluster of features, a leaf of a tree or
            a known group. What chose them must not have seen these answers: choose them by other examples.
        num_bins: at least 1.

    Raises:
        ValueError: NaN, numbers that do not belong to the same examples, confidences outside 0 to 1, answers that are
            not 0 or 1, regions that are no whole numbers; no bin.

    References:
        Perez-Lebel, Le Morvan and Varoquaux, Beyond calibration: estimating the grouping loss of modern neural
        networks, 2023, section 4.

    Example:
        >>> correct = np.repeat([1, 0, 1, 0], [90, 10, 50, 50])  # 0.9 of the first hundred, 0.5 of the second
        >>> print(f"{btl.metrics.grouping_loss(np.full(200, 0.7), correct, np.repeat([0, 1], 100)):.3f}")
        0.039
    """
    check_arguments(grouping_loss, locals())
    # Imported here, since it takes a tenth of a second.
    from scipy.optimize import isotonic_regression

    values, right, kinds = vector("confidence", confidence), vector("correct", correct), vector("regions", regions)
    if len({len(values), len(right), len(kinds)}) > 1:
        raise ValueError(
            f"confidence is of {len(values)} examples, correct of {len(right)} and regions of {len(kinds)}; give all "
            "of the same examples"
        )
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; it must be at least 1")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"confidence is from {values.min():.3g} to {values.max():.3g}; give probabilities")
    if np.any((right != 0) & (right != 1)):
        raise ValueError("correct must be 1 where the answer was right, and 0 where it was wrong")
    if np.any(kinds != np.round(kinds)):
        raise ValueError("regions must be whole numbers, one for each kind of example")
    bins = np.clip(np.ceil(values * num_bins).astype(int) - 1, 0, num_bins - 1)
    places, run = np.unique(values, return_inverse=True)
    counts = np.bincount(run)
    of_confidence = isotonic_regression(np.bincount(run, right) / counts, weights=counts).x[run]
    _, cells = np.unique(np.stack([bins, kinds.astype(int)]), axis=1, return_inverse=True)
    of_cell, of_bin = _spread(right, cells.ravel(), ddof=1), _spread(right, bins, ddof=1)
    # The only one of its kind in a bin tells nothing of the kind's accuracy.
    is_single = np.bincount(cells.ravel())[cells.ravel()] == 1
    between = np.where(is_single, 0.0, of_bin - of_cell)
    return float(np.mean(between - _spread(of_confidence, bins)))


def _spread(values: np.ndarray, groups: np.ndarray, ddof: int = 0) -> np.ndarray:
    """The variance of the values in each example's group, (N,); with ``ddof=1`` without the bias of small groups."""
    num = np.bincount(groups)
    mean = np.bincount(groups, values) / np.maximum(num, 1)
    squares = np.bincount(groups, (values - mean[groups]) ** 2)
    return (squares / np.maximum(num - ddof, 1))[groups]
