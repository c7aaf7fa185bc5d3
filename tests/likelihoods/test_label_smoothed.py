"""Label smoothing, against optax's smoothed labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from bayestl import curvature, likelihoods

KEY = jax.random.key(0)
LOGITS = np.random.default_rng(0).normal(size=(5, 3))
LABELS = np.array([0, 1, 2, 1, 0])


@pytest.mark.x64
def test_is_the_cross_entropy_of_smoothed_labels():
    likelihood = likelihoods.label_smoothed(likelihoods.categorical(), 0.2)
    smoothed = optax.smooth_labels(jax.nn.one_hot(LABELS, 3), 0.2)
    expected = optax.softmax_cross_entropy(jnp.asarray(LOGITS), smoothed)
    np.testing.assert_allclose(-likelihood(jnp.asarray(LOGITS)).log_prob(LABELS), expected, rtol=1e-10)
    columns = curvature.ggn(KEY, likelihood, jnp.asarray(LOGITS), None)  # the same for every label
    p = softmax(LOGITS, axis=1)
    hessians = p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :]
    np.testing.assert_allclose(np.einsum("kna,knb->nab", columns, columns), hessians, atol=1e-12)


@pytest.mark.x64
def test_on_top_of_class_weights_every_class_keeps_its_weight():
    weights = np.array([1.0, 5.0, 0.2])
    likelihood = likelihoods.label_smoothed(likelihoods.class_weighted(likelihoods.categorical(), weights), 0.3)
    shares = 0.7 * np.eye(3)[LABELS] + 0.1
    expected = np.sum(shares * weights * log_softmax(LOGITS, axis=1), axis=1)
    np.testing.assert_allclose(likelihood(jnp.asarray(LOGITS)).log_prob(LABELS), expected, rtol=1e-10)
    assert not likelihoods.knows_hessian(likelihood, jnp.asarray(LOGITS))


def test_without_smoothing_it_is_the_likelihood_itself_at_infinity_too():
    logits = jnp.array([jnp.inf, -100.0, 0.0])
    for target in (0, 1):
        ours = likelihoods.label_smoothed(likelihoods.bernoulli(), 0.0)(logits).log_prob(jnp.full(3, target))
        np.testing.assert_array_equal(ours, likelihoods.bernoulli()(logits).log_prob(jnp.full(3, target)))


@pytest.mark.parametrize("amount", [-0.1, 1.0, np.nan, [0.1, 0.1]])
def test_amount_out_of_range(amount):
    with pytest.raises((ValueError, TypeError), match="amount is"):
        likelihoods.label_smoothed(likelihoods.categorical(), amount)
