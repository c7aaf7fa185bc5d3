import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.integrate import quad
from scipy.stats import norm, t

from bayestl import likelihoods, metrics
from bayestl.predict import Predictive

WEIGHTS = np.array([0.2, 0.5, 0.3])


def mixture(seed, shape):
    rng = np.random.default_rng(seed)
    location, scale = 2 * rng.normal(size=(3, *shape)), rng.uniform(0.3, 1.5, size=(3, *shape))
    outputs = (jnp.asarray(location), jnp.log(jnp.asarray(scale)))
    return Predictive(outputs, likelihoods.normal(), jnp.log(WEIGHTS)), location, scale, 2 * rng.normal(size=shape)


def by_integration(location, scale, target):
    """CRPS from its definition, the integral of the squared distance of two distribution functions."""

    def cdf(x):
        return WEIGHTS @ norm.cdf(x, location, scale)

    below, _ = quad(lambda x: cdf(x) ** 2, -30, target, limit=200, epsabs=1e-11)
    above, _ = quad(lambda x: (1 - cdf(x)) ** 2, target, 30, limit=200, epsabs=1e-11)
    return below + above


@pytest.mark.x64
def test_crps_is_the_integral_of_its_definition():
    predictive, location, scale, targets = mixture(0, (4,))
    expected = np.mean([by_integration(location[:, b], scale[:, b], targets[b]) for b in range(4)])
    np.testing.assert_allclose(metrics.crps(predictive, targets), expected, rtol=1e-8)  # tolerance of the integration


@pytest.mark.x64
def test_crps_of_several_outputs_is_their_mean():
    predictive, location, scale, targets = mixture(1, (2, 3))
    each = [by_integration(location[:, b, j], scale[:, b, j], targets[b, j]) for b in range(2) for j in range(3)]
    np.testing.assert_allclose(metrics.crps(predictive, targets), np.mean(each), rtol=1e-8)


def test_crps_without_spread_is_the_absolute_error():
    predictive = Predictive(jnp.array([[1.0, 5.0]]), likelihoods.normal(1e-25), jnp.zeros(1))
    # 1e-25 squared is 0 in float32.
    np.testing.assert_allclose(metrics.crps(predictive, jnp.array([3.0, 4.0])), 1.5, rtol=1e-6)


def test_crps_needs_normals():
    likelihood = likelihoods.from_function(lambda f: dist.StudentT(4.0, f, 1.0))
    predictive = Predictive(jnp.zeros((1, 3)), likelihood, jnp.zeros(1))
    with pytest.raises(TypeError, match=r"mixture of normals is needed.*StudentT"):
        metrics.crps(predictive, jnp.zeros(3))


@pytest.mark.x64
def test_rmse_is_over_examples_and_outputs():
    predictive, location, _, targets = mixture(2, (5, 3))
    mean = np.tensordot(WEIGHTS, location, axes=1)
    expected = np.sqrt(np.mean((targets - mean) ** 2))
    np.testing.assert_allclose(metrics.rmse(predictive, targets), expected, rtol=1e-12)  # float64 rounding


@pytest.mark.x64
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_counts_targets_between_the_quantiles(level):
    predictive = mixture(3, (60,))[0]
    targets = np.asarray(predictive.sample(jax.random.key(0), 1))[0]
    low, high = predictive.quantile((1 - level) / 2), predictive.quantile((1 + level) / 2)
    expected = np.mean((targets >= low) & (targets <= high))
    # the same count of examples, divided in float32 or float64
    np.testing.assert_allclose(metrics.interval_coverage(predictive, targets, level=level), expected, rtol=1e-6)
    assert 0 < expected < 1


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_calibrated_and_of_too_narrow_predictives(level):
    rng = np.random.default_rng(4)
    num = 20_000
    location = rng.normal(size=num)
    targets = location + 2 * rng.normal(size=num)
    for scale, expected in [(2.0, level), (1.0, 2 * norm.cdf(norm.ppf((1 + level) / 2) / 2) - 1)]:
        predictive = Predictive(jnp.asarray(location)[None], likelihoods.normal(scale), jnp.zeros(1))
        found = metrics.interval_coverage(predictive, targets.astype(np.float32), level=level)
        np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(0.25 / num))  # binomial standard error


def test_coverage_of_any_distribution_with_a_cdf():
    likelihood = likelihoods.from_function(lambda f: dist.StudentT(4.0, f, 1.0))
    predictive = Predictive(jnp.zeros((1, 2)), likelihood, jnp.zeros(1))
    edge = t.ppf(0.95, 4)
    assert metrics.interval_coverage(predictive, jnp.array([0.99 * edge, 1.01 * edge])) == 0.5


@pytest.mark.parametrize("level", [0.0, 1.0, 90, np.nan])
def test_level_out_of_range(level):
    predictive = mixture(0, (4,))[0]
    with pytest.raises(ValueError, match=r"level is .*between 0 and 1, both excluded"):
        metrics.interval_coverage(predictive, np.zeros(4), level=level)


@pytest.mark.parametrize("metric", [metrics.crps, metrics.rmse, metrics.interval_coverage])
def test_targets_that_would_broadcast(metric):
    with pytest.raises(ValueError, match=r"targets have shape \(4, 1\)"):
        metric(mixture(0, (4,))[0], np.zeros((4, 1)))


def test_gradients_are_finite_where_the_prediction_is_exact():
    def score(location):
        predictive = Predictive(location, likelihoods.normal(1.0), jnp.log(jnp.array([0.5, 0.5])))
        return metrics.crps(predictive, jnp.zeros(2))

    # d/dm E|X - 0| at m = 0 vanishes by symmetry.
    np.testing.assert_allclose(jax.grad(score)(jnp.zeros((2, 2))), 0, atol=1e-6)
