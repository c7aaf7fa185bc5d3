"""What candidates that were right about everything held out would have said of a mistake."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers

# Where a class is as good as certain, its complement is not what rounding leaves of it.
_SMALLEST = 1e-14


def further_error(log_predictive: Numbers) -> np.ndarray:
    """Log probability of one further mistake: that an example like those held out is of another class than expected.

    The mean over the examples of ``log(1 - p)``, p the probability that a candidate gave to the class. Where few
    examples are held out, all may be predicted right by chance, and the candidate that is surest then scores best. As
    one more observation, which says that after N right ones the next may be wrong, it belongs to the log prior of
    :func:`average`; it fades as the examples become many.

    Args:
        log_predictive: Q, (M, N): log probabilities in nats of the classes of N held-out examples under M candidates.

    Returns:
        (M,), nats; at least log(1e-14).

    Raises:
        ValueError: another shape, or numbers above 0, which are densities.

    Example:
        >>> surer_and_right = jnp.log(jnp.array([[0.8, 0.9], [0.999, 0.999]]))
        >>> print(btl.tune.further_error(surer_and_right).round(2))
        [-1.96 -6.91]
    """
    check_arguments(further_error, locals())
    scores = np.asarray(log_predictive, np.float64)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"log_predictive has shape {scores.shape}; give (candidates, examples)")
    if np.any(scores > 1e-6):
        raise ValueError(
            f"log_predictive holds {scores.max():.3g}; give log probabilities of classes, at most 0: a mistake is what "
            "is left of 1, which densities of numbers do not say"
        )
    return np.log(np.maximum(-np.expm1(np.minimum(scores, 0.0)), _SMALLEST)).mean(1)
