"""Which scales to try, in units of what a prior says about the outputs."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers

# Logarithms of the variance of the outputs under the prior, over its typical value: from a network that hardly leaves
# the prior's mean to one that the prior hardly holds.
NARROWEST, WIDEST = -6.5, 5.5
# Standard deviation of the logarithm of that variance under the prior over scales; chosen on the digits tasks.
_WIDTH = 2.0


def scales_around(variances: Numbers, typical: float, num: int = 13) -> np.ndarray:
    """Log factors on the covariances of families of priors, the same for all of them in the space of outputs.

    Args:
        variances: of the outputs under each family at factor 1, (F,): :func:`mean_prior_variance`.
        typical: the variance of outputs that one expects.
        num: how many, K.

    Returns:
        (F, K), ascending.

    Raises:
        ValueError: numbers that are not positive and finite; fewer than 2 scales.

    Example:
        >>> btl.tune.scales_around(np.array([100.0]), 10.0, 3).round(2)
        array([[-8.8, -2.8,  3.2]])
    """
    check_arguments(scales_around, locals())
    if num < 2:
        raise ValueError(f"num is {num}; a path needs at least 2 scales")
    return np.linspace(NARROWEST, WIDEST, num) + _logarithms(variances, typical)[:, None]


def scale_prior(log_scales: Numbers, variances: Numbers, typical: float) -> np.ndarray:
    """Log prior weights of the scales, normalised within each family, (F, K).

    ``-1/2 (log(v / typical) / 2)^2`` with ``v = tau variances``: weak, and what decides where nothing is left out.

    Args:
        log_scales: log tau, (F, K).
        variances: as for :func:`scales_around`.
        typical: likewise.

    Example:
        >>> np.exp(btl.tune.scale_prior(np.array([[0.0, 4.0]]), np.array([1.0]), 1.0)).round(2)
        array([[0.88, 0.12]])
    """
    check_arguments(scale_prior, locals())
    log_prior = -0.5 * ((np.asarray(log_scales) - _logarithms(variances, typical)[:, None]) / _WIDTH) ** 2
    return log_prior - np.log(np.sum(np.exp(log_prior), -1, keepdims=True))


def _logarithms(variances: np.ndarray, typical: float) -> np.ndarray:
    """Log factors at which the outputs have their typical variance, (F,)."""
    variances = np.asarray(variances, float)
    if variances.ndim != 1:
        raise ValueError(f"variances have shape {variances.shape}; give one number for every family, (F,)")
    for name, values in (("variances", variances), ("typical", np.asarray(typical))):
        if not np.all(np.isfinite(values) & (values > 0)):
            raise ValueError(
                f"{name} is {values}; it must be positive and finite: outputs that no parameter moves have no scale"
            )
    return np.log(typical) - np.log(variances)
