import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from bayestl import likelihoods, metrics
from bayestl.predict import Predictive, from_probabilities


@pytest.fixture
def probs():
    return np.random.default_rng(0).dirichlet(np.ones(5), size=60).astype(np.float32)


@pytest.fixture
def labels():
    # class 3 never occurs, class 4 once
    return np.array([0] * 30 + [1] * 20 + [2] * 9 + [4])


def test_accuracy_is_the_share_of_right_answers(probs, labels):
    expected = accuracy_score(labels, probs.argmax(axis=1))
    np.testing.assert_allclose(metrics.accuracy(from_probabilities(probs), labels), expected, rtol=1e-6)  # float32


def test_macro_accuracy_counts_every_class_that_occurs_alike(probs, labels):
    expected = balanced_accuracy_score(labels, probs.argmax(axis=1))
    assert abs(expected - accuracy_score(labels, probs.argmax(axis=1))) > 1e-3
    found = metrics.macro_accuracy(from_probabilities(probs), labels)
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # float32 rounding


def test_a_binary_predictive_has_two_classes():
    predictive = Predictive(jnp.array([[2.0, -1.0, 0.5, -3.0]]), likelihoods.bernoulli(), jnp.zeros(1))
    targets = np.array([1, 1, 1, 0])
    np.testing.assert_allclose(metrics.accuracy(predictive, targets), 0.75, rtol=1e-6)
    np.testing.assert_allclose(metrics.macro_accuracy(predictive, targets), (2 / 3 + 1) / 2, rtol=1e-6)
    assert metrics.accuracy(predictive, targets.astype(bool)) == 0.75


def test_bad_targets(probs):
    predictive = from_probabilities(probs)
    with pytest.raises(ValueError, match=r"targets have shape \(60, 1\), but the likelihood is over \(60,\)"):
        metrics.accuracy(predictive, np.zeros((60, 1), int))
    with pytest.raises(TypeError, match=r"targets have dtype float64, but .* takes integers"):
        metrics.macro_accuracy(predictive, np.zeros(60))
    with pytest.raises(ValueError, match=r"weights has shape \(60, 1\), but must have \(60,\)"):
        metrics.accuracy(predictive, np.zeros(60, int), np.ones((60, 1)))
