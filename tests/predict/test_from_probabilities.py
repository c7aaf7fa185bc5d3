import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl.predict import from_probabilities

PROBS = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], np.float32)


def test_probabilities_are_kept_to_the_bit():
    votes = np.random.default_rng(0).dirichlet(np.ones(10), size=50).astype(np.float32)
    np.testing.assert_array_equal(from_probabilities(votes).probs, votes)


def test_log_prob_with_exact_zeros():
    predictive = from_probabilities(PROBS)
    np.testing.assert_allclose(predictive.log_prob(np.array([1, 0])), [np.log(0.5), 0.0], rtol=1e-6)  # float32
    assert predictive.log_prob(np.array([1, 2]))[1] == -np.inf
    assert not np.isnan(predictive.probs).any()


def test_samples_follow_the_probabilities():
    draws = np.asarray(from_probabilities(PROBS).sample(jax.random.key(0), 10_000))
    counts = (draws[..., None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(counts, PROBS, atol=5 * np.sqrt(0.25 / 10_000))  # binomial standard error
    assert (draws[:, 1] == 0).all()


def test_is_for_classification_and_may_be_traced():
    assert from_probabilities(PROBS).is_classification
    traced = jax.jit(lambda p: from_probabilities(p).log_prob(jnp.array([0, 0])))(PROBS)
    np.testing.assert_allclose(traced, [np.log(0.2), 0.0], rtol=1e-6)  # float32 rounding


def test_what_is_not_probabilities():
    with pytest.raises(ValueError, match=r"probs have shape \(2,\), but must be \(B, C\).*stack"):
        from_probabilities(np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"1 of 2 rows that are not.*row 1: smallest -0.1, sum 1\).*not logits"):
        from_probabilities(np.array([[0.5, 0.5], [1.1, -0.1]]))
    with pytest.raises(ValueError, match=r"1 of 1 rows.*sum 2"):
        from_probabilities(np.array([[1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"1 of 2 rows.*row 0"):
        from_probabilities(np.array([[np.nan, 1.0], [0.0, 1.0]]))
