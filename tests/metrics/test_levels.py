import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayestl import likelihoods, metrics
from bayestl.predict import Predictive, from_probabilities

RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.ones(3), size=80).astype(np.float32)
LABELS = RNG.integers(3, size=80)
GIVEN = from_probabilities(PROBS)


def one_class(probabilities, is_class, num_bins):
    bins = np.clip(np.ceil(probabilities * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = [abs(is_class[bins == k].mean() - probabilities[bins == k].mean()) * np.mean(bins == k) for k in set(bins)]
    return sum(gaps)


def test_classwise_is_the_mean_over_classes_against_the_rest():
    expected = np.mean([one_class(PROBS[:, c].astype(np.float64), c == LABELS, 10) for c in range(3)])
    np.testing.assert_allclose(metrics.ece_classwise(GIVEN, LABELS, num_bins=10), expected, rtol=1e-5)


def test_the_largest_gap_is_that_of_the_bins():
    bins = metrics.reliability_bins(GIVEN, LABELS, num_bins=8)
    expected = np.nanmax(np.abs(np.asarray(bins.accuracy) - np.asarray(bins.confidence)))
    np.testing.assert_allclose(metrics.max_calibration_error(GIVEN, LABELS, num_bins=8), expected, rtol=1e-6)


@pytest.mark.parametrize("metric", [metrics.ece_classwise, metrics.max_calibration_error])
def test_a_weight_of_two_is_the_row_twice_and_padding_does_not_count(metric):
    weights = np.ones(80)
    weights[3], weights[7] = 2, 0
    rows = np.concatenate([np.delete(np.arange(80), 7), [3]])
    twice = metric(from_probabilities(PROBS[rows]), LABELS[rows])
    np.testing.assert_allclose(metric(GIVEN, LABELS, weights), twice, rtol=1e-5)


def normal_predictive(scale, num=4000):
    return Predictive(jnp.zeros((1, num)), likelihoods.normal(scale), jnp.zeros(1))


def test_pit_is_uniform_where_the_predictive_is_right():
    targets = RNG.normal(size=4000)
    values = np.asarray(metrics.pit(normal_predictive(1.0), targets))
    np.testing.assert_allclose(values, stats.norm.cdf(targets), atol=1e-5)
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert stats.kstest(np.asarray(metrics.pit(normal_predictive(0.5), targets)), "uniform").pvalue < 1e-10


def test_quantile_calibration_is_the_distance_of_the_shares():
    targets = RNG.normal(size=4000)
    given = normal_predictive(0.5)
    levels = np.arange(1, 10) / 10
    shares = [(stats.norm.cdf(targets / 0.5) <= level).mean() for level in levels]
    made = metrics.quantile_calibration_error(given, targets, num_levels=9)
    np.testing.assert_allclose(made, np.abs(np.array(shares) - levels).mean(), atol=2e-4)
    assert metrics.quantile_calibration_error(normal_predictive(1.0), targets) < 0.02
    padded = np.r_[np.ones(3999), 0]
    other = metrics.quantile_calibration_error(given, np.r_[targets[:-1], 50.0], padded, num_levels=9)
    np.testing.assert_allclose(other, metrics.quantile_calibration_error(given, targets, padded, num_levels=9))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_bins is 0"):
        metrics.ece_classwise(GIVEN, LABELS, num_bins=0)
    with pytest.raises(ValueError, match="num_levels is 0"):
        metrics.quantile_calibration_error(normal_predictive(1.0, 2), np.zeros(2), num_levels=0)
    with pytest.raises(TypeError):
        metrics.pit(GIVEN, LABELS)
    assert jnp.isnan(jax.jit(lambda y: metrics.ece_classwise(GIVEN, y))(jnp.full(80, 9)))
