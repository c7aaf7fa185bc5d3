"""The H-score: how far apart the classes lie in units of the features' spread."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.transferability._checks import checked_features, checked_labels


def h_score(features: Numbers, labels: Numbers, shrinkage: float | None = None) -> float:
    """The H-score with a shrunk covariance: the spread of the class means in units of the spread of the features.

    ``(1 - a) tr(Sigma_a^-1 Sigma_between)``, ``Sigma_a = (1 - a) Sigma + a tr(Sigma) / D I``, both covariances with
    divisor N. Larger is better; at most the number of classes less 1 when nothing is shrunk. Without shrinkage and with
    fewer examples than features it would be that number whatever the labels.

    Args:
        features: of the target's inputs, (N, D).
        labels: the target's, (N,), whole numbers.
        shrinkage: a, from 0 (the plain H-score, of a pseudo-inverse where the covariance is singular) to 1; None for
            the one that Ledoit and Wolf estimate.

    Raises:
        ValueError: shapes that differ, one class alone, non-finite features, a shrinkage out of range.
        TypeError: labels that are not whole numbers.

    Reference:
        Bao et al. 2019, "An Information-Theoretic Approach to Transferability in Task Transfer Learning"; shrunk:
        Ibrahim, Ponomareva and Mazumder 2021, "Newer is not always better: Rethinking transferability metrics, their
        peculiarities, stability and performance", equation 6; a by Ledoit and Wolf 2004.

    Example:
        >>> features = [[-1.0], [-1.0], [1.0], [1.0]]
        >>> print(btl.transferability.h_score(features, [0, 0, 1, 1], shrinkage=0.0))    # all spread is between classes
        1.0
    """
    check_arguments(h_score, locals())
    features = checked_features(features)
    places, _ = checked_labels(labels, len(features))
    num, size = features.shape
    centred = features - features.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    spread = singular**2 / num
    if not spread[0] > 0:
        return 0.0
    a = ledoit_wolf(centred, spread) if shrinkage is None else shrinkage
    if not 0 <= a <= 1:
        raise ValueError(f"shrinkage is {a}; give a number from 0 to 1, or None for the estimated one")
    shrunk = (1 - a) * spread + a * spread.sum() / size
    # Directions without spread, which rounding gives some of, hold nothing of the class means either.
    real = spread > spread[0] * max(num, size) * np.finfo(np.float64).eps
    counts = np.bincount(places)
    sums = np.stack([centred[places == c].sum(axis=0) for c in range(len(counts))])
    along = (sums / counts[:, None]) @ directions[real].T
    return float((1 - a) * np.sum(counts[:, None] / num * along**2 / shrunk[real]))


def ledoit_wolf(centred: np.ndarray, spread: np.ndarray) -> float:
    """How far to shrink a covariance towards a multiple of the identity.

    Args:
        centred: features of mean zero, (N, D).
        spread: the eigenvalues of their covariance of divisor N, those of zero left out or not.

    Reference:
        Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", section 3.2.
    """
    num, size = centred.shape
    squares = np.sum(spread**2)
    distance = squares - spread.sum() ** 2 / size
    if distance <= 0:
        return 0.0
    noise = (np.sum(np.sum(centred**2, axis=1) ** 2) / num - squares) / num
    return float(min(max(noise, 0.0) / distance, 1.0))
