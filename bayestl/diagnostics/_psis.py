"""Pareto smoothed importance sampling: whether an approximation is close enough to its target to be corrected."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers


class PSIS(NamedTuple):
    """Attributes:
    log_weights: (S,), smoothed and normalised; for a :class:`~bayestl.Samples` that corrects the approximation.
    khat: shape of the generalised Pareto distribution that fits the largest weights; NaN where there are too few. Where
        ties or underflow leave none to fit, -inf if the weights are nearly equal (their variance is at most their
        squared mean), and inf if a few of them outweigh all others.
    """

    log_weights: np.ndarray
    khat: float


def psis(log_weights: Numbers) -> PSIS:
    """Importance weights with the largest ones replaced by those of a fitted tail, and the shape of that tail.

    A generalised Pareto distribution is fitted to the M = min(S/5, 3 sqrt(S)) largest weights. Its shape k-hat says
    how far the draws are from their target. Below 0.7, averages under the smoothed weights can be trusted. Above, no
    feasible S gives usable averages: the two distributions differ where it matters.

    Args:
        log_weights: (S,), log target - log proposal at draws of the proposal, up to a constant.

    Raises:
        ValueError: not one axis of at least 1 number, a NaN, +inf, or -inf at all draws.

    Reference:
        Vehtari et al. 2024, "Pareto Smoothed Importance Sampling" (arXiv 1507.02646); the fit is that of Zhang and
        Stephens 2009, "A New and Efficient Estimation Method for the Generalized Pareto Distribution", drawn towards
        0.5 with the weight of 10 draws.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=4000)
        >>> print(btl.diagnostics.psis(0.1 * draws).khat < 0.2, btl.diagnostics.psis(draws**2).khat > 0.7)
        True True
    """
    check_arguments(psis, locals())
    log_weights = np.array(log_weights, np.float64)
    if log_weights.ndim != 1 or not log_weights.size:
        raise ValueError(f"log_weights has shape {log_weights.shape}; give one number per draw, (S,)")
    if np.isnan(log_weights).any():
        raise ValueError(
            f"log_weights has {np.isnan(log_weights).sum()} NaN among {log_weights.size} values; the log joint or the "
            "approximation's log density is not a number at some draws"
        )
    if not np.isfinite(log_weights.max()):
        raise ValueError(
            f"the largest of log_weights is {log_weights.max()}; the target has no density at any draw, or an infinite "
            "one at some"
        )
    num = log_weights.size
    log_weights = log_weights - log_weights.max()
    tail, khat = math.ceil(min(num / 5, 3 * math.sqrt(num))), math.nan
    order = np.argsort(log_weights)
    if tail >= 5:
        cutoff = np.exp(log_weights[order[-tail - 1]])
        excess = np.exp(log_weights[order[-tail:]]) - cutoff
        if excess[-1] > 1e-10 * np.exp(log_weights[order[-1]]) and excess[tail // 4] > 0:
            khat, sigma = _fit(excess)
            places = (np.arange(tail) + 0.5) / tail
            smoothed = cutoff + _quantile(places, khat, sigma)
            # No smoothed weight above the largest raw one.
            log_weights[order[-tail:]] = np.minimum(np.log(smoothed), 0.0)
        else:
            khat = -math.inf if _are_nearly_equal(np.exp(log_weights)) else math.inf
    return PSIS(log_weights - np.logaddexp.reduce(log_weights), khat)


def _are_nearly_equal(weights: np.ndarray) -> bool:
    """Whether the variance of the weights is at most their squared mean: the effective size is then at least S / 2."""
    return bool(np.sum(weights) ** 2 >= weights.size * np.sum(weights**2) / 2)


def psis_khat(log_weights: Numbers) -> float:
    """The shape k-hat of the tail of importance weights; see :func:`psis`.

    Args:
        log_weights: (S,), log target - log proposal at draws of the proposal, up to a constant.
    """
    check_arguments(psis_khat, locals())
    return psis(log_weights).khat


def _quantile(p: np.ndarray, shape: float, sigma: float) -> np.ndarray:
    if abs(shape) < 1e-12:
        return -sigma * np.log1p(-p)
    return sigma * np.expm1(-shape * np.log1p(-p)) / shape


def _fit(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution from ascending positive numbers.

    The posterior mean of b = -shape/scale over a grid, under the profile likelihood and Zhang and Stephens' prior.
    """
    num = excess.size
    points = 30 + int(math.sqrt(num))
    quartile = excess[int(num / 4 + 0.5) - 1]
    grid = 1 / excess[-1] + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    shapes = np.mean(np.log1p(-grid[:, None] * excess), axis=1)
    profile = num * (np.log(-grid / shapes) - shapes - 1)
    weights = np.exp(profile - np.logaddexp.reduce(profile))
    b = np.sum(weights * grid)
    shape = float(np.mean(np.log1p(-b * excess)))
    sigma = float(-shape / b)
    return (num * shape + 10 * 0.5) / (num + 10), sigma
