import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from sklearn.metrics import log_loss

from bayestl import likelihoods, metrics
from bayestl.predict import Predictive, from_probabilities


def test_of_classes():
    probs, labels = np.random.default_rng(0).dirichlet(np.ones(3), size=20), np.arange(20) % 3
    found = metrics.report(from_probabilities(probs), labels)
    assert list(found) == ["accuracy", "macro_accuracy", "nll", "brier", "ece", "ece_equal_mass"]
    assert all(type(value) is float for value in found.values())
    np.testing.assert_allclose(found["nll"], log_loss(labels, probs), rtol=1e-5)  # float32 rounding


def test_of_normals_counts_and_binary_targets():
    normals = Predictive(jnp.zeros((1, 4)), likelihoods.normal(1.0), jnp.zeros(1))
    assert list(metrics.report(normals, jnp.zeros(4))) == ["nll", "rmse", "crps", "interval_coverage"]
    counts = Predictive(jnp.zeros((1, 4)), likelihoods.from_function(lambda f: dist.Poisson(jnp.exp(f))), jnp.zeros(1))
    assert list(metrics.report(counts, jnp.zeros(4, int))) == ["nll", "rmse"]
    binary = Predictive(jnp.zeros((1, 4)), likelihoods.bernoulli(), jnp.zeros(1))
    assert "ece" in metrics.report(binary, jnp.zeros(4, int))


def test_the_mask_reaches_every_metric():
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = metrics.report(from_probabilities(probs), np.array([0, 0, 1]), np.array([1, 1, 0]))
    assert found == metrics.report(from_probabilities(probs[:2]), np.array([0, 0]))
