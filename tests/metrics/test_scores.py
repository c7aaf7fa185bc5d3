import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, log_loss

from bayestl import likelihoods, metrics
from bayestl.predict import Predictive, from_probabilities


@pytest.mark.x64
def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(4), size=50), rng.integers(0, 4, 50)
    predictive = from_probabilities(probs)
    # float64 rounding
    np.testing.assert_allclose(metrics.nll(predictive, labels), log_loss(labels, probs), rtol=1e-12)
    one_hot = np.eye(4)[labels]
    np.testing.assert_allclose(metrics.brier(predictive, labels), ((probs - one_hot) ** 2).sum(1).mean(), rtol=1e-12)


@pytest.mark.x64
def test_binary_brier_is_that_of_two_classes():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=40), rng.integers(0, 2, 40)
    predictive = Predictive(jnp.asarray(logits)[None], likelihoods.bernoulli(), jnp.zeros(1))
    probs = 1 / (1 + np.exp(-logits))
    # scikit-learn's binary score is the square of one class's error: half of ours. float64 rounding.
    np.testing.assert_allclose(metrics.brier(predictive, labels), 2 * brier_score_loss(labels, probs), rtol=1e-12)
    np.testing.assert_allclose(metrics.nll(predictive, labels), log_loss(labels, probs), rtol=1e-12)


@pytest.mark.x64
def test_nll_of_an_average_of_networks():
    rng = np.random.default_rng(2)
    probs, labels = rng.dirichlet(np.ones(3), size=(5, 20)), rng.integers(0, 3, 20)
    predictive = Predictive(jnp.log(probs), likelihoods.categorical(), jnp.full(5, -jnp.log(5.0)))
    expected = log_loss(labels, probs.mean(axis=0))
    np.testing.assert_allclose(metrics.nll(predictive, labels), expected, rtol=1e-12)  # float64 rounding
    assert expected < np.mean([log_loss(labels, p) for p in probs]) - 0.1  # the samples' own scores, by Jensen


def test_nll_of_several_outputs_is_per_example():
    predictive = Predictive(jnp.zeros((1, 4, 3)), likelihoods.normal(1.0), jnp.zeros(1))
    found = metrics.nll(predictive, jnp.ones((4, 3)))
    np.testing.assert_allclose(found, -3 * norm.logpdf(1), rtol=1e-6)  # float32 rounding


def test_nll_of_the_impossible_is_infinite():
    assert metrics.nll(from_probabilities(np.array([[1.0, 0.0], [0.5, 0.5]])), np.array([1, 0])) == np.inf
