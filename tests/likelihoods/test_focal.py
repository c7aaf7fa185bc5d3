"""The focal loss, against optax, numpy in float64, and the frequencies that minimise it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from scipy.special import log_softmax, softmax

import bayestl as btl
from bayestl import curvature, likelihoods
from bayestl.predict import Predictive

KEY = jax.random.key(0)
LOGITS = 2 * np.random.default_rng(0).normal(size=(5, 3))
LABELS = np.array([0, 1, 2, 1, 0])


@pytest.mark.x64
def test_values_gradients_and_hessians_of_yes_or_no():
    logits, labels = jnp.linspace(-6.0, 6.0, 13), jnp.arange(13) % 2
    likelihood = likelihoods.focal(likelihoods.bernoulli(), 2.0)

    def loss(logits):
        return jnp.sum(optax.sigmoid_focal_loss(logits, labels, gamma=2.0))

    def ours(logits):
        return -jnp.sum(likelihood(logits).log_prob(labels))

    def all_three(fn):
        return jax.jit(lambda f: (fn(f), jax.grad(fn)(f), jax.hessian(fn)(f)))(logits)

    for a, b in zip(all_three(ours), all_three(loss), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.x64
def test_of_several_weighted_classes():
    weights = np.array([1.0, 5.0, 0.2])
    likelihood = likelihoods.focal(likelihoods.class_weighted(likelihoods.categorical(), weights), 1.5)
    log_p = log_softmax(LOGITS, axis=1)[np.arange(5), LABELS]
    expected = weights[LABELS] * (1 - np.exp(log_p)) ** 1.5 * log_p
    np.testing.assert_allclose(likelihood(jnp.asarray(LOGITS)).log_prob(LABELS), expected, rtol=1e-10)


@pytest.mark.x64
@pytest.mark.parametrize("power", [0.0, 0.5, 3.0])
def test_predictions_are_the_frequencies_behind_the_minimum(power):
    frequencies = np.array([0.72, 0.25, 0.03])

    def expected_loss(logits):
        log_p = log_softmax(logits)
        return -np.sum(frequencies * (1 - np.exp(log_p)) ** power * log_p)

    best = scipy.optimize.minimize(expected_loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    likelihood = likelihoods.focal(likelihoods.categorical(), power)
    given = Predictive(jnp.asarray(best)[None, None], likelihood, jnp.zeros(1))
    np.testing.assert_allclose(given.probs[0], frequencies, atol=1e-6)  # where BFGS stops
    if power:
        assert softmax(best).max() < 0.7


def test_extreme_logits():
    """In float32: the frequencies behind a binary p are, far out, the sigmoid of (1 + k) f - log(1 + k)."""
    logits = jnp.array([0.0, 30.0, -30.0, 100.0, jnp.inf, -jnp.inf])
    likelihood = likelihoods.focal(likelihoods.bernoulli(), 2.0)
    log_odds = np.array([0, 90 - np.log(3), np.log(3) - 90, 300 - np.log(3), np.inf, -np.inf])
    np.testing.assert_allclose(likelihood.predictive(logits).logits, log_odds, rtol=1e-6)

    @jax.jit
    def value_and_gradient(logits, labels):
        def total(f):
            each = likelihood(f).log_prob(labels)
            return each.sum(), each

        gradient, each = jax.grad(total, has_aux=True)(logits)
        return each, gradient

    half = -np.log(2) / 4
    for target, expected in ((1, [half, 0, -30, 0, 0, -np.inf]), (0, [half, -30, 0, -100, -np.inf, 0])):
        each, gradient = value_and_gradient(logits, jnp.full(6, target))
        np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-20)
        # -(1 - p) far from the label, up to its factor; the same at infinity.
        np.testing.assert_allclose(gradient[1:], (2 * target - 1) * (np.array(expected[1:]) != 0), atol=1e-5)


def test_extreme_logits_of_several_classes():
    logits = jnp.stack([jnp.array([0.0, 30.0, -30.0, 100.0, jnp.inf, -jnp.inf]), jnp.zeros(6), -jnp.ones(6)], axis=1)
    likelihood = likelihoods.focal(likelihoods.categorical(), 2.0)
    labels = jnp.array([0, 1, 2, 0, 0, 1])
    gradient = jax.jit(jax.grad(lambda f: likelihood(f).log_prob(labels).sum()))(logits)
    assert np.isfinite(gradient).all()
    assert not np.isnan(likelihood.predictive(logits).logits).any()


def test_what_it_has_no_answer_for():
    likelihood = likelihoods.focal(likelihoods.categorical())
    with pytest.raises(TypeError, match="fisher draws labels from the density"):
        curvature.fisher(2)(KEY, likelihood, jnp.asarray(LOGITS), None)
    net = btl.nets.from_function(lambda params, x: x @ params, jnp.zeros((2, 3)))
    posterior = btl.gaussians.isotropic(net.params, 0.5)
    joint = btl.LogJoint(net, likelihood, posterior, num_data=6)
    with pytest.raises(TypeError, match=r"give link=predict\.sampled"):
        btl.predict.linearized(joint, posterior)(jnp.ones((4, 2)))
    for power in (-1.0, np.inf, np.nan, [1.0]):
        with pytest.raises((ValueError, TypeError), match="power is"):
            likelihoods.focal(likelihoods.categorical(), power)
