"""Whether stated probabilities are right: of every class, at worst, and of real targets at every level."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Targets
from bayestl.metrics._calibration import check_num_bins, error_of_equal_width, reliability_bins
from bayestl.metrics._examples import Predictive, check_targets, class_probs, known_classes, weighted_mean
from bayestl.metrics._metric import Metric


def max_calibration_error(
    predictive: Predictive, targets: Targets, weights: Numbers | None = None, *, num_bins: int = 15
) -> jax.Array:
    """The largest gap between accuracy and confidence in a bin, ``max_k |accuracy_k - confidence_k|`` (MCE).

    A bin with few examples decides as much as one with many, so it is noisy; say the bins.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.
        num_bins: number of bins, which are those of :func:`reliability_bins`.

    References:
        Guo et al., On calibration of modern neural networks, 2017, equation 4.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.1, 0.9]]))
        >>> print(f"{btl.metrics.max_calibration_error(given, jnp.array([1, 0])):.2f}")
        0.90
    """
    check_arguments(max_calibration_error, locals())
    bins = reliability_bins(predictive, targets, weights, num_bins=num_bins)
    gaps = jnp.where(bins.count > 0, jnp.abs(bins.accuracy - bins.confidence), -jnp.inf)
    return jnp.where(jnp.sum(bins.count) > 0, jnp.max(gaps), jnp.nan)


def ece_classwise(
    predictive: Predictive, targets: Targets, weights: Numbers | None = None, *, num_bins: int = 15
) -> jax.Array:
    """Expected calibration error of every class against the rest, and the mean over the classes.

    ``1/C sum_c sum_k n_kc / n |share_kc - probability_kc|``: every probability counts, not only that of the predicted
    class, in bins of equal width.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.
        num_bins: of each class, at least 1.

    Raises:
        ValueError: ``num_bins`` below 1.

    References:
        Kull et al., Beyond temperature scaling, 2019, equation 3.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.25, 0.75]]))
        >>> btl.metrics.ece_classwise(given, jnp.array([1, 0])).item()
        0.25
    """
    check_arguments(ece_classwise, locals())
    check_num_bins(num_bins)
    return Metric("ece_classwise", _each_class, partial(_classwise, num_bins))(predictive, targets, weights)


def pit(predictive: Predictive, targets: Targets) -> Float[Array, "B ..."]:
    """Probability integral transforms, the predictive's cdf at each target: uniform where it is calibrated.

    A histogram that is high at both ends shows predictives that are too narrow, one that is high in the middle too wide
    ones, a slope that they are biased.

    Args:
        predictive: of real targets.
        targets: (B, ...).

    Raises:
        TypeError: the predictive has no cdf.

    References:
        Gneiting, Balabdaoui and Raftery, Probabilistic forecasts, calibration and sharpness, 2007.

    Example:
        >>> given = btl.predict.Predictive(jnp.zeros((1, 2)), btl.likelihoods.normal(1.0), jnp.zeros(1))
        >>> print(btl.metrics.pit(given, jnp.array([0.0, 1.0])).round(2))
        [0.5  0.84]
    """
    check_arguments(pit, locals())
    targets = _tree.with_arrays(targets)
    check_targets(predictive, targets)
    return predictive.cdf(targets)


def quantile_calibration_error(
    predictive: Predictive, targets: Targets, weights: Numbers | None = None, *, num_levels: int = 19
) -> jax.Array:
    """How far the shares of targets below predicted quantiles are from their levels, on average.

    ``1/K sum_k |share of targets below quantile q_k - q_k|`` at ``q_k = k / (K + 1)``; of all outputs together.

    Args:
        predictive: of real targets.
        targets: (B, ...).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.
        num_levels: K, at least 1.

    Raises:
        TypeError: the predictive has no cdf.
        ValueError: ``num_levels`` below 1.

    References:
        Kuleshov, Fenner and Ermon, Accurate uncertainties for deep learning using calibrated regression, 2018.

    Example:
        >>> given = btl.predict.Predictive(jnp.zeros((1, 2)), btl.likelihoods.normal(1.0), jnp.zeros(1))
        >>> btl.metrics.quantile_calibration_error(given, jnp.array([-1.0, 1.0]), num_levels=1).item()
        0.0
    """
    check_arguments(quantile_calibration_error, locals())
    if num_levels < 1:
        raise ValueError(f"num_levels is {num_levels}; it must be at least 1")
    levels = jnp.arange(1, num_levels + 1) / (num_levels + 1)
    return Metric("quantile_calibration_error", _below, partial(_from_levels, levels))(predictive, targets, weights)


def _each_class(predictive: Predictive, targets: Targets) -> tuple[jax.Array, jax.Array]:
    """Probabilities (B, C) and labels as ones and zeros (B, C), NaN outside the classes."""
    probs, labels = class_probs(predictive, targets)
    hot = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    return probs, hot + (known_classes(jnp.zeros(len(labels)), labels, probs.shape[1]))[:, None]


def _classwise(num_bins: int, numbers: tuple[jax.Array, jax.Array], weights: jax.Array) -> jax.Array:
    of_class = jax.vmap(lambda *of_class: error_of_equal_width(num_bins, of_class, weights), (1, 1))
    return jnp.mean(of_class(*numbers))


def _below(predictive: Predictive, targets: Targets) -> jax.Array:
    values = pit(predictive, targets)
    return values.reshape(values.shape[0], -1)


def _from_levels(levels: jax.Array, values: Any, weights: jax.Array) -> jax.Array:
    def share(level: jax.Array) -> jax.Array:
        return weighted_mean(jnp.mean((values <= level).astype(values.dtype), axis=1), weights)

    return jnp.mean(jnp.abs(jax.vmap(share)(levels) - levels))
