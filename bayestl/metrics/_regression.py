"""Scores of predictives of real numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Scalar, Targets
from bayestl.metrics._examples import Predictive, check_shape, mean_over_outputs, weighted_mean
from bayestl.metrics._metric import Metric


def rmse(predictive: Predictive, targets: Targets, weights: Numbers | None = None) -> jax.Array:
    """Root of the mean squared error of the predictive mean, over examples and outputs, in the unit of the targets.

    Args:
        predictive: of real numbers.
        targets: (B, ...).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.

    Example:
        >>> given = btl.predict.Predictive(jnp.zeros((1, 2)), btl.likelihoods.normal(1.0), jnp.zeros(1))
        >>> btl.metrics.rmse(given, jnp.array([3.0, -3.0])).item()
        3.0
    """
    check_arguments(rmse, locals())
    return RMSE(predictive, targets, weights)


def crps(predictive: Predictive, targets: Targets, weights: Numbers | None = None) -> jax.Array:
    """Continuous ranked probability score of a mixture of normals, exact, in the unit of the targets.

    ``int (F(x) - [x >= y])^2 dx = E|X - y| - 1/2 E|X - X'|``, smaller is better; for a predictive without spread it is
    the absolute error. Of each output alone, and the mean over the outputs. Costs S^2 B.

    Args:
        predictive: a mixture of normals.
        targets: (B, ...).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.

    Raises:
        TypeError: the predictive is not a mixture of normals.

    References:
        Grimit et al., The continuous ranked probability score for circular variables and its application to mesoscale
        forecast ensemble verification, 2006, equation 5.

    Example:
        >>> given = btl.predict.Predictive(jnp.zeros((1, 1)), btl.likelihoods.normal(1.0), jnp.zeros(1))
        >>> print(f"{btl.metrics.crps(given, jnp.zeros(1)):.4f}")
        0.2337
    """
    check_arguments(crps, locals())
    return CRPS(predictive, targets, weights)


def interval_coverage(
    predictive: Predictive, targets: Targets, weights: Numbers | None = None, *, level: Scalar = 0.9
) -> jax.Array:
    """Share of targets inside their central predictive interval; a calibrated predictive gives ``level``.

    The interval is from the quantile at (1 - level) / 2 to that at (1 + level) / 2 of each output alone.
    A target lies in it when the predictive's cdf at the target is between these two probabilities.

    Args:
        predictive: of real numbers.
        targets: (B, ...).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.
        level: probability of the interval, between 0 and 1.

    Raises:
        ValueError: ``level`` out of range.
        TypeError: the predictive has no cdf.

    Example:
        >>> given = btl.predict.Predictive(jnp.zeros((1, 2)), btl.likelihoods.normal(1.0), jnp.zeros(1))
        >>> btl.metrics.interval_coverage(given, jnp.array([0.5, 3.0]), level=0.95).item()
        0.5
    """
    check_arguments(interval_coverage, locals())
    if _tree.is_concrete(level) and not 0 < float(level) < 1:
        raise ValueError(f"level is {level}; the probability of an interval lies between 0 and 1, both excluded")
    return coverage(level)(predictive, targets, weights)


def coverage(level: Scalar) -> Metric:
    """The share of targets inside their interval of probability ``level``, as a metric."""

    def inside(predictive: Predictive, targets: Targets) -> jax.Array:
        below = predictive.cdf(jnp.asarray(targets))
        return mean_over_outputs((jnp.abs(below - 0.5) <= level / 2).astype(below.dtype))

    return Metric("interval_coverage", inside, weighted_mean)


def _squared_errors(predictive: Predictive, targets: Targets) -> jax.Array:
    mean, targets = predictive.mean, jnp.asarray(targets)
    check_shape(targets, mean.shape)
    return mean_over_outputs((targets - mean) ** 2)


def _root_mean(each: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.sqrt(weighted_mean(each, weights))


def _ranked_probability_scores(predictive: Predictive, targets: Targets) -> jax.Array:
    location, scale = predictive.normal_components()
    targets = jnp.asarray(targets)
    check_shape(targets, location.shape[1:])
    draw_weights = jnp.exp(predictive.log_weights).reshape(-1, *(1,) * targets.ndim)
    to_target = jnp.sum(draw_weights * _expected_absolute(targets - location, scale), axis=0)

    def from_one(component: tuple[jax.Array, jax.Array]) -> jax.Array:
        # One component against all at a time, since all pairs at once would be an array (S, S, B).
        mean, deviation = component
        return jnp.sum(draw_weights * _expected_absolute(mean - location, jnp.hypot(deviation, scale)), axis=0)

    between = jnp.sum(draw_weights * jax.lax.map(from_one, (location, scale)), axis=0)
    return mean_over_outputs(to_target - 0.5 * between)


def _expected_absolute(mean: jax.Array, scale: jax.Array) -> jax.Array:
    """``E|Z|`` for Z ~ N(mean, scale^2)."""
    z = mean / scale
    return 2 * scale * norm.pdf(z) + mean * (2 * norm.cdf(z) - 1)


RMSE = Metric("rmse", _squared_errors, _root_mean)
CRPS = Metric("crps", _ranked_probability_scores, weighted_mean)
COVERAGE = coverage(0.9)
