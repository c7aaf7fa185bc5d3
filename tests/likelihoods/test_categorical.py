import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from bayestl import likelihoods


@pytest.mark.x64
def test_log_prob_is_log_softmax():
    rng = np.random.default_rng(0)
    logits, labels = 5 * rng.normal(size=(20, 7)), rng.integers(0, 7, 20)
    found = likelihoods.categorical()(jnp.asarray(logits)).log_prob(jnp.asarray(labels))
    # a dozen float64 operations on numbers below 30
    np.testing.assert_allclose(found, log_softmax(logits, axis=1)[np.arange(20), labels], atol=1e-13)


def test_batch_shape_is_one_number_per_example():
    distribution = likelihoods.categorical()(jnp.zeros((6, 3)))
    assert distribution.batch_shape == (6,)
    assert distribution.event_shape == ()


def test_half_precision_outputs_are_evaluated_in_float32():
    # In bfloat16 log 3 would have two or three digits.
    logits = jnp.array([[1.0, 1.0, 1.0]], jnp.bfloat16)
    found = likelihoods.categorical()(logits).log_prob(jnp.array([0]))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, -np.log(3), rtol=1e-6)  # float32 rounding


def test_a_diverged_network_gives_nan_and_does_not_raise():
    assert np.isnan(likelihoods.categorical()(jnp.full((1, 3), jnp.nan)).log_prob(jnp.array([0]))).all()


def test_is_a_pytree_without_leaves():
    assert jax.tree.leaves(likelihoods.categorical()) == []
    assert likelihoods.categorical() == likelihoods.categorical()
