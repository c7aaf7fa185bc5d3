"""Weights of candidates against optima and integrals computed otherwise."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.special

import bayestl as btl

SCORES = np.log(np.random.default_rng(0).uniform(0.05, 1, (3, 12)))


def test_stacking_is_the_best_mixture():
    """The simplex searched by scipy, in logits."""
    best = scipy.optimize.minimize(
        lambda z: -scipy.special.logsumexp(SCORES + scipy.special.log_softmax(z)[:, None], axis=0).sum(), np.zeros(3)
    )
    weights = btl.tune.average(jax.random.key(0), SCORES, num_iterations=20_000, prior_count=0.0).stacking
    np.testing.assert_allclose(weights, scipy.special.softmax(best.x), atol=2e-3)


def test_stacking_has_a_dirichlet_prior_that_counts_as_some_examples():
    """Its mode, searched by scipy, in logits; for one number it is as if there were no prior."""
    before = np.array([0.2, 0.3, 0.5])

    def loss(z: np.ndarray) -> float:
        log_weights = scipy.special.log_softmax(z)
        return -scipy.special.logsumexp(SCORES + log_weights[:, None], axis=0).sum() - 4 * before @ log_weights

    best = scipy.optimize.minimize(loss, np.zeros(3))
    options = {"num_iterations": 2000, "prior_count": 4.0}
    weights = btl.tune.average(jax.random.key(0), SCORES, np.log(before), **options).stacking
    expected = scipy.special.softmax(best.x)
    assert np.all(expected > 0.5 * before)
    np.testing.assert_allclose(weights, expected, atol=1e-4)
    # A fourth candidate that no example speaks for keeps nothing of its prior.
    worse = np.vstack([SCORES, SCORES.min(0) - 3])
    weights = btl.tune.average(jax.random.key(0), worse, np.log([*before, 0.5]), **options).stacking
    assert weights[3] == 0
    one = np.array([[-3.0], [-2.0], [-4.0]])
    with_prior, without = (btl.tune.average(jax.random.key(0), one, prior_count=c).stacking for c in (4.0, 0.0))
    np.testing.assert_array_equal(with_prior, without)
    with pytest.raises(ValueError, match="prior_count is -1"):
        btl.tune.average(jax.random.key(0), SCORES, prior_count=-1.0)


def test_pseudo_bma_is_its_integral():
    """Two candidates that differ by d nats at one of two examples: omega is uniform, so that the weight is the integral
    of a logistic function."""
    scores = np.array([[0.0, -1.0], [-3.0, -1.0]])
    expected = scipy.integrate.quad(lambda omega: scipy.special.expit(2 * 3.0 * omega + 0.5), 0, 1)[0]
    weights = btl.tune.average(jax.random.key(0), scores, [0.5, 0.0], num_draws=20_000).pseudo_bma
    np.testing.assert_allclose(weights[0], expected, atol=4 * 0.2 / np.sqrt(20_000))


def test_one_number_is_weighted_by_bayes_rule():
    evidence, prior = np.array([[-3.0], [-2.0], [-4.0]]), np.array([0.5, 0.0, 1.0])
    weights = btl.tune.average(jax.random.key(0), evidence, prior)
    np.testing.assert_allclose(weights.pseudo_bma, scipy.special.softmax(evidence[:, 0] + prior), rtol=1e-12)


def test_equal_candidates_keep_the_weights_of_the_prior():
    prior = np.log([0.2, 0.3, 0.5])
    weights = btl.tune.average(jax.random.key(0), np.full((3, 4), -1.0), prior)
    np.testing.assert_allclose(weights.weights, [0.2, 0.3, 0.5], rtol=1e-12)
    np.testing.assert_allclose(weights.errors, 0, atol=1e-12)


@pytest.mark.parametrize("num", [2, 12, 150])
def test_weights_without_an_example_are_those_of_the_others(num: int):
    """Against averages of the others alone; of more than 64 examples every 64th are left out together."""
    scores = np.log(np.random.default_rng(1).uniform(0.05, 1, (3, num)))
    prior = np.array([0.5, 0.0, -1.0])
    weights = btl.tune.left_out_weights(jax.random.key(0), scores, prior, num_draws=4000)
    assert weights.shape == (num, 3)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)
    for i in (0, num - 1):
        others = np.delete(scores, np.arange(i % 64, num, 64) if num > 64 else i, axis=1)
        expected = btl.tune.average(jax.random.key(1), others, prior, num_draws=4000).weights
        np.testing.assert_allclose(weights[i], expected, atol=4 * 0.25 / np.sqrt(2000))  # of two sets of draws


def test_weights_that_have_not_seen_an_example_gain_nothing_from_noise():
    """Candidates that differ by nothing but noise: with weights that saw it their mixture looks better than their mean
    predictive, which is all there is; with the weights of the others it does not."""
    rng = np.random.default_rng(2)
    seen, unseen = [], []
    for _ in range(40):
        scores = rng.normal(0, 1, (20, 8))
        weights = btl.tune.average(jax.random.key(0), scores).weights
        without = btl.tune.left_out_weights(jax.random.key(0), scores)
        seen.append(np.log(weights @ np.exp(scores)).mean())
        unseen.append(np.log(np.sum(without * np.exp(scores).T, 1)).mean())
    # Of one example under weights that know nothing of it; the mean over 20 candidates is near e^(1/2).
    expected = np.mean([np.log(np.exp(rng.normal(0, 1, (20, 8))).mean(0)).mean() for _ in range(40)])
    error = np.std(unseen, ddof=1) / np.sqrt(40)
    assert np.mean(unseen) < expected + 3 * error
    assert np.mean(seen) > expected + 5 * error


@pytest.mark.parametrize(
    ("scores", "prior", "message"),
    [
        (np.zeros(3), None, "has shape"),
        (np.zeros((2, 3)), np.zeros(3), "one number for each of the 2"),
        (np.full((2, 3), np.nan), None, "NaN"),
        (np.full((2, 3), -np.inf), None, "no candidate gives any probability"),
    ],
)
def test_scores_that_cannot_be_weighed_are_refused(scores: np.ndarray, prior: object, message: str):
    with pytest.raises(ValueError, match=message):
        btl.tune.average(jax.random.key(0), scores, prior)


def test_one_example_cannot_be_weighed_without_itself():
    with pytest.raises(ValueError, match="has 1 example"):
        btl.tune.left_out_weights(jax.random.key(0), np.zeros((2, 1)))
