"""Whether a stated confidence is the share of right answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl.metrics._examples import Predictive, class_probs, example_weights


class ReliabilityBins(NamedTuple):
    """Examples gathered by their confidence, the probability of the class that is predicted.

    Attributes:
        confidence: mean confidence in each bin; NaN where it is empty.
        accuracy: share of right answers in each bin; NaN where it is empty.
        count: number of examples in each bin.
    """

    confidence: Float[Array, " bins"]
    accuracy: Float[Array, " bins"]
    count: Float[Array, " bins"]


def reliability_bins(predictive: Predictive, targets: Any, mask: Any = None, *, num_bins: int = 15) -> ReliabilityBins:
    """Confidence against accuracy in bins of equal width, ``(k / M, (k + 1) / M]`` for k = 0 .. M - 1.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        mask: None, or (B,), 1 for a real example and 0 for padding.
        num_bins: M, at least 1.

    Raises:
        ValueError: ``num_bins`` below 1.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.3, 0.7], [0.9, 0.1]]))
        >>> btl.metrics.reliability_bins(given, jnp.array([0, 0]), num_bins=4).count.tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    _check_num_bins(num_bins)
    confidence, correct, weights = _answers(predictive, targets, mask)
    bins = jnp.clip(jnp.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return _gather(bins, confidence, correct, weights, num_bins)


def ece(predictive: Predictive, targets: Any, mask: Any = None, *, num_bins: int = 15) -> jax.Array:
    """Expected calibration error, ``sum_k n_k / n |accuracy_k - confidence_k|``, over bins of equal width.

    Of the predicted class alone. It depends on the number of bins and, with few examples, is biased upwards: say the
    bins, and compare only equal numbers of examples.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        mask: None, or (B,), 1 for a real example and 0 for padding; NaN comes out when all are padding.
        num_bins: number of bins, which are those of :func:`reliability_bins`.

    References:
        Guo et al., On calibration of modern neural networks, 2017, equation 3.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.25, 0.75]]))
        >>> btl.metrics.ece(given, jnp.array([1, 0])).item()
        0.25
    """
    return _expected_error(reliability_bins(predictive, targets, mask, num_bins=num_bins))


def ece_equal_mass(predictive: Predictive, targets: Any, mask: Any = None, *, num_bins: int = 15) -> jax.Array:
    """Expected calibration error over bins that hold equally many examples.

    The example of rank r of n by confidence (r = 0 .. n - 1, padding not counted) falls into bin ``floor(r M / n)``, so
    counts differ by one at most. Examples of the same confidence share their accuracy: each counts as right by the
    share of right answers among them, whichever bin it falls into, so the order of the examples does not matter.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        mask: None, or (B,), 1 for a real example and 0 for padding; NaN comes out when all are padding.
        num_bins: M, at least 1.

    Raises:
        ValueError: ``num_bins`` below 1.

    References:
        Nixon et al., Measuring calibration in deep learning, 2019, section 3 (adaptive binning; here of the predicted
        class alone).

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
        >>> btl.metrics.ece_equal_mass(given, jnp.array([1, 1]), num_bins=2).item()
        0.375
    """
    _check_num_bins(num_bins)
    confidence, correct, weights = _answers(predictive, targets, mask)
    # Padding goes behind all real examples, so that it takes no rank.
    order = jnp.argsort(jnp.where(weights > 0, confidence, jnp.inf))
    confidence, correct, weights = confidence[order], correct[order], weights[order]
    correct = _shared_in_ties(confidence, correct, weights)
    num = jnp.maximum(jnp.sum(weights > 0), 1)
    bins = jnp.minimum(jnp.arange(confidence.shape[0]) * num_bins // num, num_bins - 1)
    return _expected_error(_gather(bins, confidence, correct, weights, num_bins))


def _check_num_bins(num_bins: int) -> None:
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; it must be at least 1")


def _answers(predictive: Predictive, targets: Any, mask: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Confidence, correctness and weight of every example, (B,) each; zeros in the place of padding."""
    probs, labels = class_probs(predictive, targets)
    weights = example_weights(mask, labels.shape[0])
    confidence = jnp.where(weights > 0, jnp.max(probs, axis=-1), 0)
    return confidence, (jnp.argmax(probs, axis=-1) == labels).astype(probs.dtype), weights


def _gather(
    bins: jax.Array, confidence: jax.Array, correct: jax.Array, weights: jax.Array, num_bins: int
) -> ReliabilityBins:
    inside = bins == jnp.arange(num_bins)[:, None]

    def total(values: jax.Array) -> jax.Array:
        # Not a segment_sum, which adds one example after another: in float32, 1e6 of 0.9 would then be 1% off.
        return jnp.sum(jnp.where(inside, values, 0), axis=1)

    count = total(weights)
    some = jnp.where(count > 0, count, 1)

    def mean(values: jax.Array) -> jax.Array:
        return jnp.where(count > 0, total(weights * values) / some, jnp.nan)

    return ReliabilityBins(mean(confidence), mean(correct), count)


def _shared_in_ties(confidence: jax.Array, correct: jax.Array, weights: jax.Array) -> jax.Array:
    """Correctness averaged over runs of equal confidence, for examples in the order of their confidence."""
    # Padding has weight 0 and so changes no run, whatever confidence stands in its place.
    starts = jnp.concatenate([jnp.zeros(1, int), (confidence[1:] != confidence[:-1]).astype(int)])
    run = jnp.cumsum(starts)
    num = confidence.shape[0]
    right = jax.ops.segment_sum(weights * correct, run, num, indices_are_sorted=True)
    have = jax.ops.segment_sum(weights, run, num, indices_are_sorted=True)
    return (right / jnp.where(have > 0, have, 1))[run]


def _expected_error(bins: ReliabilityBins) -> jax.Array:
    gap = jnp.where(bins.count > 0, jnp.abs(bins.accuracy - bins.confidence), 0)
    return jnp.sum(bins.count * gap) / jnp.sum(bins.count)
