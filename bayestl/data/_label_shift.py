"""Label shift: the same classes, and other shares of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from bayestl._arguments import check_arguments
from bayestl._generator import generator
from bayestl._types import Key, Numbers
from bayestl.data._splits import class_labels


def label_shift(
    key: Key,
    labels: Any,
    *,
    class_weights: Numbers | None = None,
    concentration: float | None = None,
    num: int | None = None,
    replace: bool = False,
) -> Int[np.ndarray, " num"]:
    """Row numbers that resample examples so that classes have other frequencies: p(y) changes, p(x | y) does not.

    On the host, and a function of the key alone. Give either the wished frequencies or the concentration of a
    symmetric Dirichlet distribution that they are drawn from (Lipton, Wang and Smola, 2018).

    Without replacement no row comes twice, and class k has num w_k rows, rounded by largest remainders so that the
    counts sum to num. With replacement every row is an independent draw: first a class by its weight, then one of its
    rows, so that counts are multinomial.

    Args:
        key: of the draws.
        labels: (N,) class of each row.
        class_weights: (K,) numbers >= 0 for the K classes that occur in ``labels``, in the order of ``np.unique``;
            they are divided by their sum.
        concentration: > 0; the same frequencies for all classes where it is large, few classes where it is small.
        num: how many rows. By default N with replacement, and without it the most for which no class runs out.
        replace: whether a row may come again.

    Returns:
        int32 (num,), in random order.

    Raises:
        ValueError: both or none of ``class_weights`` and ``concentration``; weights that are not one per class, or of
            which none is positive; without replacement a class with too few rows, or no row at all.

    Example:
        >>> labels = np.array([0, 1] * 50)
        >>> rows = btl.data.label_shift(jax.random.key(0), labels, class_weights=[4, 1])
        >>> np.bincount(labels[rows]).tolist()
        [50, 13]
    """
    check_arguments(label_shift, locals())
    labels = class_labels(labels)
    classes, numbers, available = np.unique(labels, return_inverse=True, return_counts=True)
    rng = generator(key)
    if (class_weights is None) == (concentration is None):
        raise ValueError("give either class_weights or a concentration, and not both")
    if class_weights is not None:
        weights = _weights(class_weights, len(classes))
    elif concentration is not None and 0 < concentration < float("inf"):
        weights = rng.dirichlet(np.full(len(classes), float(concentration)))
    else:
        raise ValueError(f"concentration is {concentration!r}; give a number > 0, such as 1.0")
    if num is not None and num < 1:
        raise ValueError(f"num is {num}; give the number of rows, at least 1")
    rows_of_class = [np.flatnonzero(numbers == k) for k in range(len(classes))]
    if replace:
        counts = rng.multinomial(len(labels) if num is None else num, weights)
    else:
        counts = _rounded(num, weights) if num is not None else _most(weights, available)
        _check_counts(classes, counts, available)
    drawn = [rng.choice(rows, count, replace=replace) for rows, count in zip(rows_of_class, counts, strict=True)]
    return rng.permutation(np.concatenate(drawn)).astype(np.int32)


def _weights(given: Any, num_classes: int) -> np.ndarray:
    weights = np.asarray(given, float)
    if weights.shape != (num_classes,):
        raise ValueError(
            f"class_weights has shape {weights.shape} and labels {num_classes} classes; give one weight for each, in "
            "the order of np.unique(labels)"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError(f"class_weights is {given!r}; give finite numbers >= 0, at least one of them > 0")
    return weights / weights.sum()


def _rounded(num: int, weights: np.ndarray) -> np.ndarray:
    """Counts that sum to ``num`` by largest remainders; on a tie the class that comes first."""
    # Products such as 10 * 0.3 lie a rounding error off a whole number, and would lose a row to another class.
    exact = np.round(num * weights, 9)
    counts = np.floor(exact).astype(int)
    left = num - counts.sum()
    counts[np.argsort(-(exact - counts), kind="stable")[:left]] += 1
    return counts


def _most(weights: np.ndarray, available: np.ndarray) -> np.ndarray:
    """The counts of the largest number of rows for which no class runs out."""
    positive = weights > 0
    # Rounding moves a class by less than one row, so that the answer is among few numbers.
    upper = int(np.min((available[positive] + 1) / weights[positive]))
    for num in range(min(upper, len(weights) + int(available.sum())), 0, -1):
        counts = _rounded(num, weights)
        if (counts <= available).all():
            return counts
    return np.zeros(len(weights), int)


def _check_counts(classes: np.ndarray, counts: np.ndarray, available: np.ndarray) -> None:
    if counts.sum() == 0:
        raise ValueError("not one row can be drawn without replacement; give other weights, or replace=True")
    short = np.flatnonzero(counts > available)
    if len(short):
        first = short[0]
        raise ValueError(
            f"class {classes[first]!s} has {available[first]} rows and would need {counts[first]}; ask for a smaller "
            "num, or give replace=True"
        )
