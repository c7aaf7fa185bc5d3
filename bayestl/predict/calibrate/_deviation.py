"""Standard deviations that are right on average."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.predict._given import numbers_of, same_length


def deviation_factor(mean: Numbers, deviation: Numbers, targets: Numbers) -> float:
    """The factor on all standard deviations that normal predictives of held-out examples are most likely under.

    ``sqrt(mean ((y - m) / s)^2)``, in closed form; above 1 where the predictives were too sure.

    Args:
        mean: (N,), m.
        deviation: (N,), s > 0.
        targets: (N,), y.

    Raises:
        ValueError: numbers that do not belong to the same examples, are not finite, or deviations that are not above 0.

    Example:
        >>> btl.predict.calibrate.deviation_factor([0.0, 0.0], [1.0, 2.0], [2.0, 4.0])
        2.0
    """
    check_arguments(deviation_factor, locals())
    given = numbers_of("mean", mean, 1)
    spread = same_length("deviation", numbers_of("deviation", deviation, 1), "mean", len(given))
    observed = same_length("targets", numbers_of("targets", targets, 1), "mean", len(given))
    if not (spread > 0).all():
        raise ValueError(f"deviation is not above 0 for {int((spread <= 0).sum())} of {len(spread)} examples")
    return float(np.sqrt(np.mean(((observed - given) / spread) ** 2)))
