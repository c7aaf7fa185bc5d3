"""Calibration error without bins: smoothed over the confidences, by a kernel as wide as the error itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Targets
from bayestl.metrics._calibration import answers_of, weighted_gaps
from bayestl.metrics._examples import Predictive
from bayestl.metrics._metric import Metric

# Frequencies of the cosine series, which resolve kernels down to a width of about 0.002, and places of the integral.
_FREQUENCIES, _PLACES = 512, 1024
_AT_ONCE = 4096
_HALVINGS = 24


def ece_smooth(predictive: Predictive, targets: Targets, weights: Numbers | None = None) -> jax.Array:
    """Expected calibration error without bins: gaps between accuracy and confidence, smoothed over the confidences.

    ``smECE(s) = int_0^1 |1/n sum_i K_s(t, c_i) (right_i - c_i)| dt`` with a Gaussian kernel of width s that is
    reflected at 0 and 1, at the one width for which ``smECE(s) = s``. Small changes of the predictions change it
    little, and no number of bins has to be chosen. Of the predicted class alone; resolved to about 0.002.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.

    References:
        Blasiok and Nakkiran, Smooth ECE: principled reliability diagrams via kernel smoothing, 2023, definition 4.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.25, 0.75]]))
        >>> print(f"{btl.metrics.ece_smooth(given, jnp.array([1, 0])):.3f}")
        0.250
    """
    check_arguments(ece_smooth, locals())
    return Metric("ece_smooth", answers_of, _smooth)(predictive, targets, weights)


def _smooth(answers: tuple[jax.Array, jax.Array], weights: jax.Array) -> jax.Array:
    """The width at which the smoothed error is as large as the width."""
    frequencies = jnp.pi * jnp.arange(_FREQUENCIES)
    # On an interval with reflecting ends a Gaussian kernel multiplies the cosine of frequency w by exp(-(s w)^2 / 2).
    series = _cosine_sums(frequencies, *answers, weights) * jnp.where(frequencies > 0, 2.0, 1.0) / jnp.sum(weights)
    waves = jnp.cos(frequencies[:, None] * (jnp.arange(_PLACES) + 0.5) / _PLACES)

    def error(width: jax.Array) -> jax.Array:
        damped = series * jnp.exp(-0.5 * (width * frequencies) ** 2)
        return jnp.mean(jnp.abs(jnp.dot(damped, waves, precision="highest")))

    def halved(ends: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        low, high = ends
        middle = 0.5 * (low + high)
        is_above = error(middle) > middle
        return (jnp.where(is_above, middle, low), jnp.where(is_above, high, middle)), None

    # The error falls as the kernel widens, so that there is one such width.
    zero = 0 * series[0]
    (low, high), _ = jax.lax.scan(halved, (zero, zero + 1), None, length=_HALVINGS)
    return 0.5 * (low + high)


def _cosine_sums(frequencies: jax.Array, confidence: jax.Array, correct: jax.Array, weights: jax.Array) -> jax.Array:
    """``sum_i w_i (right_i - c_i) cos(w c_i)`` at every frequency, a few examples at a time."""
    gaps = weighted_gaps(confidence, correct, weights)
    num = len(gaps)
    size = min(num, _AT_ONCE)
    pad = (0, -num % size)
    # Padding may hold anything, and has a gap of 0.
    rows = jnp.pad(jnp.where(weights > 0, confidence, 0), pad).reshape(-1, size)

    def add(total: jax.Array, both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        place, gap = both
        return total + jnp.dot(gap, jnp.cos(place[:, None] * frequencies), precision="highest"), None

    start = jnp.zeros(len(frequencies), gaps.dtype)
    return jax.lax.scan(add, start, (rows, jnp.pad(gaps, pad).reshape(-1, size)))[0]
