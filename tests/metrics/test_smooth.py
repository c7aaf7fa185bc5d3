"""Calibration error without bins, against sums of reflected kernels in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from bayestl import metrics
from bayestl.predict import from_probabilities


def smoothed(confidence, correct, width, num=4000):
    """Blasiok and Nakkiran, equation 10: the kernel summed over the mirror images of every confidence."""
    places = (np.arange(num) + 0.5) / num
    images = [2 * k + sign * confidence for k in range(-4, 5) for sign in (-1, 1)]
    kernel = sum(norm.pdf(places[:, None], image, width) for image in images)
    return np.mean(np.abs(kernel @ (correct - confidence))) / len(confidence)


@pytest.mark.parametrize("bias", [0.0, 0.1, -0.2])
def test_it_is_where_the_smoothed_error_is_as_large_as_the_kernel_is_wide(bias):
    rng = np.random.default_rng(0)
    confidence = rng.beta(4, 2, size=200) / 2 + 0.5
    correct = (rng.random(200) < np.clip(confidence + bias, 0, 1)).astype(float)
    expected = brentq(lambda width: smoothed(confidence, correct, width) - width, 1e-3, 1.0, xtol=1e-6)
    given = from_probabilities(np.stack([confidence, 1 - confidence], 1))
    np.testing.assert_allclose(metrics.ece_smooth(given, (correct == 0).astype(int)), expected, atol=2e-5)


@pytest.mark.parametrize("confidence", [0.55, 0.9, 1.0])
def test_the_gap_of_one_confidence_is_the_error(confidence):
    given = from_probabilities(np.tile([confidence, 1 - confidence], (50, 1)))
    labels = (np.arange(50) >= 30).astype(int)
    np.testing.assert_allclose(metrics.ece_smooth(given, labels), abs(0.6 - confidence), atol=1e-4)


def test_a_weight_of_two_is_the_row_twice_and_padding_does_not_count(monkeypatch):
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(3), size=40)
    labels, weights = rng.integers(3, size=40), np.ones(40)
    weights[3], weights[7] = 2, 0
    rows = np.concatenate([np.delete(np.arange(40), 7), [3]])
    expected = metrics.ece_smooth(from_probabilities(probs[rows]), labels[rows])
    np.testing.assert_allclose(metrics.ece_smooth(from_probabilities(probs), labels, weights), expected, atol=1e-6)
    # Examples are added up a few at a time.
    monkeypatch.setattr("bayestl.metrics._smooth._AT_ONCE", 16)
    np.testing.assert_allclose(metrics.ece_smooth(from_probabilities(probs), labels, weights), expected, atol=1e-6)
    assert jnp.isnan(metrics.ece_smooth(from_probabilities(probs), labels, np.zeros(40)))
