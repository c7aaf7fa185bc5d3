"""What it means that a scale is the first or the last of those that were tried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers

# What a prior's scale runs to, downwards and upwards.
LIMITS = (
    "it runs to 0, where the data change nothing and the prior's mean predicts as it is",
    "it runs to infinity, where the prior holds nothing and its mean is a start alone",
)
# Families below this share of the weights are not spoken of.
_NOTABLE = 0.1


def edges(names: Sequence[str], scores: Numbers, weights: Numbers | None = None) -> tuple[str, ...]:
    """Notes about families of priors that score best at the edge of their scales, and which limit they run to.

    At 0 the prior's mean predicts as it is; at infinity the prior holds nothing, and its mean is a start alone.

    Args:
        names: of the F families.
        scores: larger is better, (F, K), for scales that ascend.
        weights: of each family and scale, (F, K), as :func:`average` gives them: families that hardly have any are
            passed over; None for notes about all.

    Raises:
        ValueError: shapes that differ.

    Example:
        >>> btl.tune.edges(["source", "fresh"], [[0.0, 1.0, 2.0], [0.0, 1.0, 0.0]])
        ("'source' is best at the largest scale: it runs to infinity, where the prior holds nothing and its mean is a \
start alone",)
    """
    check_arguments(edges, locals())
    scores = np.asarray(scores, float)
    each_weight = np.ones(scores.shape) if weights is None else np.asarray(weights, float)
    if scores.ndim != 2 or len(scores) != len(names) or each_weight.shape != scores.shape:
        raise ValueError(
            f"scores have shape {scores.shape} and weights {each_weight.shape}; give one row for each of the "
            f"{len(names)} families and one column for each scale"
        )
    shares = each_weight.sum(-1)
    notes = []
    for name, each, share in zip(names, scores, shares, strict=True):
        best = int(np.argmax(each))
        if share < _NOTABLE or np.ptp(each) == 0:
            continue
        if best == 0:
            notes.append(f"{name!r} is best at the smallest scale: {LIMITS[0]}")
        elif best == len(each) - 1:
            notes.append(f"{name!r} is best at the largest scale: {LIMITS[1]}")
    return tuple(notes)
