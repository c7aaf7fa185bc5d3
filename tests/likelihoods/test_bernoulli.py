import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import bernoulli

from bayestl import likelihoods


@pytest.mark.x64
def test_log_prob_is_that_of_the_logistic():
    rng = np.random.default_rng(0)
    logits, targets = 3 * rng.normal(size=30), rng.integers(0, 2, 30)
    found = likelihoods.bernoulli()(jnp.asarray(logits)).log_prob(jnp.asarray(targets))
    # float64 rounding of p near 1 in the oracle
    np.testing.assert_allclose(found, bernoulli.logpmf(targets, 1 / (1 + np.exp(-logits))), atol=1e-12)


def test_extreme_logits_keep_their_log_probability():
    found = likelihoods.bernoulli()(jnp.array([200.0, -200.0])).log_prob(jnp.array([0, 1]))
    np.testing.assert_allclose(found, [-200, -200], rtol=1e-6)  # float32 rounding


def test_batch_shape_and_dtype():
    distribution = likelihoods.bernoulli()(jnp.zeros(6, jnp.bfloat16))
    assert distribution.batch_shape == (6,)
    assert distribution.log_prob(jnp.ones(6, int)).dtype == jnp.float32


def test_targets_may_be_bools():
    found = likelihoods.bernoulli()(jnp.array([1.0, 1.0])).log_prob(jnp.array([True, False]))
    np.testing.assert_allclose(found, [-np.log1p(np.exp(-1)), -np.log1p(np.exp(1))], rtol=1e-6)  # float32 rounding
