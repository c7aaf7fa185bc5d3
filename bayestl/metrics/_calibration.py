"""Whether a stated confidence is the share of right answers."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Targets
from bayestl.metrics._examples import Predictive, class_probs, known_classes
from bayestl.metrics._metric import Metric


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


def reliability_bins(
    predictive: Predictive, targets: Targets, weights: Numbers | None = None, *, num_bins: int = 15
) -> ReliabilityBins:
    """Confidence against accuracy in bins of equal width, ``(k / M, (k + 1) / M]`` for k = 0 .. M - 1.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.
        num_bins: M, at least 1.

    Raises:
        ValueError: ``num_bins`` below 1.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.3, 0.7], [0.9, 0.1]]))
        >>> btl.metrics.reliability_bins(given, jnp.array([0, 0]), num_bins=4).count.tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    check_arguments(reliability_bins, locals())
    check_num_bins(num_bins)
    return Metric("reliability_bins", answers_of, partial(_bins_of_equal_width, num_bins))(predictive, targets, weights)


def ece(predictive: Predictive, targets: Targets, weights: Numbers | None = None, *, num_bins: int = 15) -> jax.Array:
    """Expected calibration error, ``sum_k n_k / n |accuracy_k - confidence_k|``, over bins of equal width.

    Of the predicted class alone. It depends on the number of bins and, with few examples, is biased upwards: say the
    bins, and compare only equal numbers of examples.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.
        num_bins: number of bins, which are those of :func:`reliability_bins`.

    References:
        Guo et al., On calibration of modern neural networks, 2017, equation 3.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.25, 0.75]]))
        >>> btl.metrics.ece(given, jnp.array([1, 0])).item()
        0.25
    """
    check_arguments(ece, locals())
    check_num_bins(num_bins)
    return Metric("ece", answers_of, partial(error_of_equal_width, num_bins))(predictive, targets, weights)


def ece_equal_mass(
    predictive: Predictive, targets: Targets, weights: Numbers | None = None, *, num_bins: int = 15
) -> jax.Array:
    """Expected calibration error over bins that hold equally many examples.

    The example of rank r of n by confidence (r = 0 .. n - 1, padding not counted) falls into bin ``floor(r M / n)``, so
    counts differ by one at most. Examples of the same confidence share their accuracy: each counts as right by the
    share of right answers among them, whichever bin it falls into, so the order of the examples does not matter.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.
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
    check_arguments(ece_equal_mass, locals())
    check_num_bins(num_bins)
    return Metric("ece_equal_mass", answers_of, partial(_error_of_equal_mass, num_bins))(predictive, targets, weights)


def check_num_bins(num_bins: int) -> None:
    """Raise where there is no bin."""
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; it must be at least 1")


def answers_of(predictive: Predictive, targets: Targets) -> tuple[jax.Array, jax.Array]:
    """Confidence and correctness of every example, (B,) each."""
    probs, labels = class_probs(predictive, targets)
    is_right = (jnp.argmax(probs, axis=-1) == labels).astype(probs.dtype)
    return jnp.max(probs, axis=-1), known_classes(is_right, labels, probs.shape[1])


def _bins_of_equal_width(num_bins: int, answers: tuple[jax.Array, ...], weights: jax.Array) -> ReliabilityBins:
    confidence, correct = answers
    return _gather(jnp.where(_inside(num_bins, confidence), weights, 0), confidence, correct)


def _inside(num_bins: int, confidence: jax.Array) -> jax.Array:
    """Which of the bins each example lies in, (M, B); padding, which may hold anything, in the first."""
    bins = jnp.clip(jnp.ceil(jnp.nan_to_num(confidence) * num_bins).astype(int) - 1, 0, num_bins - 1)
    return bins == jnp.arange(num_bins)[:, None]


def error_of_equal_width(num_bins: int, answers: tuple[jax.Array, ...], weights: jax.Array) -> jax.Array:
    """The expected error of confidences and correctness, (B,) each."""
    confidence, correct = answers
    gaps = weighted_gaps(confidence, correct, weights)
    # A product, so that many weights at once are one of matrices.
    of_bins = jnp.dot(_inside(num_bins, confidence).astype(gaps.dtype), gaps, precision="highest")
    return jnp.sum(jnp.abs(of_bins)) / jnp.sum(weights)


def _error_of_equal_mass(num_bins: int, answers: tuple[jax.Array, jax.Array], weights: jax.Array) -> jax.Array:
    # An order that knows no weights is one for all resampled ones. Padding takes no rank, wherever it stands.
    order = jnp.argsort(answers[0])
    confidence, correct, weights = answers[0][order], answers[1][order], weights[order]
    gaps = weighted_gaps(confidence, _shared_in_ties(confidence, correct, weights), weights)
    # An example of weight w takes the ranks from the sum of the weights before it to w above: those of w rows.
    above, up_to = jnp.cumsum(weights), jnp.cumsum(gaps)
    total, numbers = above[-1], jnp.arange(num_bins + 1)
    whole = jnp.all(weights == jnp.round(weights))
    # Bin k holds the ranks r with floor(r M / n) = k; weights that are not whole numbers are cut where bins meet.
    edges = jnp.where(whole, -(-(numbers * jnp.round(total).astype(int)) // num_bins), numbers / num_bins * total)
    cut = jnp.clip(jnp.searchsorted(above, edges), 0, len(above) - 1)
    beyond = (above[cut] - edges) / jnp.where(weights[cut] > 0, weights[cut], 1)
    return jnp.sum(jnp.abs(jnp.diff(up_to[cut] - beyond * gaps[cut]))) / total


def weighted_gaps(confidence: jax.Array, correct: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.where(weights > 0, weights * (correct - confidence), 0)


def _gather(inside: jax.Array, confidence: jax.Array, correct: jax.Array) -> ReliabilityBins:
    """Bins from the weight with which each example lies in each, (M, B)."""
    # Not a segment_sum, which adds one example after another: in float32, 1e6 of 0.9 would then be 1% off.
    count = jnp.sum(inside, axis=1)
    some = jnp.where(count > 0, count, 1)

    def mean(values: jax.Array) -> jax.Array:
        return jnp.where(count > 0, jnp.sum(jnp.where(inside > 0, inside * values, 0), axis=1) / some, jnp.nan)

    return ReliabilityBins(mean(confidence), mean(correct), count)


def _shared_in_ties(confidence: jax.Array, correct: jax.Array, weights: jax.Array) -> jax.Array:
    """Correctness averaged over runs of equal confidence, for examples in the order of their confidence."""
    # Padding has weight 0 and so changes no run, whatever confidence stands in its place.
    starts = jnp.concatenate([jnp.zeros(1, int), (confidence[1:] != confidence[:-1]).astype(int)])
    run = jnp.cumsum(starts)
    num = confidence.shape[0]
    right = jax.ops.segment_sum(jnp.where(weights > 0, weights * correct, 0), run, num, indices_are_sorted=True)
    have = jax.ops.segment_sum(weights, run, num, indices_are_sorted=True)
    return (right / jnp.where(have > 0, have, 1))[run]


ECE = Metric("ece", answers_of, partial(error_of_equal_width, 15))
ECE_EQUAL_MASS = Metric("ece_equal_mass", answers_of, partial(_error_of_equal_mass, 15))
