import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal, norm

from bayestl import likelihoods
from bayestl.predict import Predictive

WEIGHTS = np.array([0.2, 0.5, 0.3])


def of_classes(rng, num=4, classes=3):
    logits = 2 * rng.normal(size=(3, num, classes))
    return Predictive(jnp.asarray(logits), likelihoods.categorical(), jnp.log(WEIGHTS)), softmax(logits, axis=-1)


def of_normals(rng, shape=(4,)):
    location, scale = 2 * rng.normal(size=(3, *shape)), rng.uniform(0.3, 1.5, size=(3, *shape))
    outputs = (jnp.asarray(location), jnp.log(jnp.asarray(scale)))
    return Predictive(outputs, likelihoods.normal(), jnp.log(WEIGHTS)), location, scale


@pytest.mark.x64
def test_probs_are_the_weighted_average():
    predictive, probs = of_classes(np.random.default_rng(0))
    # float64 rounding
    np.testing.assert_allclose(predictive.probs, np.einsum("s,sbc->bc", WEIGHTS, probs), rtol=1e-13)


@pytest.mark.x64
def test_binary_probs_have_one_number_per_example():
    logits = np.random.default_rng(0).normal(size=(3, 5))
    predictive = Predictive(jnp.asarray(logits), likelihoods.bernoulli(), jnp.log(WEIGHTS))
    expected = WEIGHTS @ (1 / (1 + np.exp(-logits)))
    np.testing.assert_allclose(predictive.probs, expected, rtol=1e-13)  # float64 rounding
    np.testing.assert_allclose(predictive.mean, expected, rtol=1e-13)
    np.testing.assert_allclose(predictive.variance, expected * (1 - expected), rtol=1e-12)


@pytest.mark.x64
def test_log_prob_of_classes_is_that_of_the_average():
    predictive, probs = of_classes(np.random.default_rng(1))
    labels = np.array([0, 2, 1, 1])
    expected = np.log(np.einsum("s,sbc->bc", WEIGHTS, probs)[np.arange(4), labels])
    np.testing.assert_allclose(predictive.log_prob(labels), expected, rtol=1e-12)  # float64 rounding


@pytest.mark.x64
def test_several_outputs_are_a_mixture_of_joint_densities():
    rng = np.random.default_rng(2)
    predictive, location, scale = of_normals(rng, (4, 2))
    targets = rng.normal(size=(4, 2))
    for b in range(4):
        joint = [multivariate_normal.pdf(targets[b], location[s, b], np.diag(scale[s, b] ** 2)) for s in range(3)]
        np.testing.assert_allclose(predictive.log_prob(targets)[b], np.log(WEIGHTS @ joint), rtol=1e-12)
        # A product of mixtures is another number: the outputs share their parameters.
        product = logsumexp(norm.logpdf(targets[b], location[:, b], scale[:, b]), b=WEIGHTS[:, None], axis=0).sum()
        assert abs(product - np.log(WEIGHTS @ joint)) > 1e-3


def test_far_targets_do_not_underflow():
    predictive = Predictive(jnp.zeros((2, 1)), likelihoods.normal(1.0), jnp.log(jnp.array([0.5, 0.5])))
    # exp(-5000) is 0 in float32; the log density is not.
    np.testing.assert_allclose(predictive.log_prob(jnp.array([100.0])), norm.logpdf(100), rtol=1e-6)


@pytest.mark.x64
@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_moments_are_those_of_the_mixture(shape):
    predictive, location, scale = of_normals(np.random.default_rng(3), shape)
    weights = WEIGHTS.reshape(-1, *(1,) * len(shape))
    mean = np.sum(weights * location, axis=0)
    second = np.sum(weights * (location**2 + scale**2), axis=0)
    np.testing.assert_allclose(predictive.mean, mean, rtol=1e-12)  # float64 rounding, here and below
    np.testing.assert_allclose(predictive.variance, second - mean**2, rtol=1e-11)
    spread = np.sum(weights * location**2, axis=0) - mean**2
    np.testing.assert_allclose(predictive.function_variance(), spread, rtol=1e-11)


def test_function_variance_survives_a_large_mean():
    outputs = 1e4 + jnp.array([[-0.25], [0.25]])
    predictive = Predictive(outputs, likelihoods.normal(1.0), jnp.log(jnp.array([0.5, 0.5])))
    # float32 resolves 1e-3 at 1e4; E[f^2] - E[f]^2 would be off by 8.
    np.testing.assert_allclose(predictive.function_variance(), 0.0625, rtol=1e-2)


@pytest.mark.x64
@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_cdf_is_the_weighted_average_of_the_marginals(shape):
    rng = np.random.default_rng(4)
    predictive, location, scale = of_normals(rng, shape)
    values = rng.normal(size=shape)
    expected = np.tensordot(WEIGHTS, norm.cdf(values, location, scale), axes=1)
    np.testing.assert_allclose(predictive.cdf(values), expected, rtol=1e-12)  # float64 rounding


def test_samples_have_the_mixture_s_moments_and_share_a_parameter_sample():
    location = jnp.array([[-3.0, -3.0], [5.0, 5.0]])
    predictive = Predictive(location, likelihoods.normal(0.5), jnp.log(jnp.array([0.75, 0.25])))
    num = 20_000
    draws = np.asarray(predictive.sample(jax.random.key(0), num))
    assert draws.shape == (num, 2)
    # mixture: mean -1, variance 0.25 + 12; the mean of num draws has standard error sqrt(12.25 / num)
    np.testing.assert_allclose(draws.mean(axis=0), -1.0, atol=5 * np.sqrt(12.25 / num))
    # The two modes are 16 noise standard deviations apart: one component, one sign, for all examples of a draw.
    assert np.all((draws[:, 0] > 0) == (draws[:, 1] > 0))
    # Within a mode the noise is independent: its correlation has standard error 1 / sqrt(15000).
    low = draws[draws[:, 0] < 0]
    np.testing.assert_allclose(low.std(axis=0), 0.5, rtol=5 / np.sqrt(2 * len(low)))
    assert abs(np.corrcoef(low.T)[0, 1]) < 5 / np.sqrt(len(low))


def test_samples_of_classes_are_labels():
    predictive, probs = of_classes(np.random.default_rng(5))
    draws = np.asarray(predictive.sample(jax.random.key(1), 10_000))
    expected = np.einsum("s,sbc->bc", WEIGHTS, probs)
    counts = (draws[..., None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(counts, expected, atol=5 * np.sqrt(0.25 / 10_000))  # binomial standard error


def test_works_under_jit_vmap_and_grad():
    predictive, location, _ = of_normals(np.random.default_rng(6))
    targets = jnp.zeros(4)
    np.testing.assert_allclose(
        jax.jit(lambda p, t: p.log_prob(t))(predictive, targets), predictive.log_prob(targets), rtol=1e-5
    )
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), predictive.outputs)
    means = jax.vmap(lambda o: Predictive(o, predictive.likelihood, predictive.log_weights).mean)(many)
    np.testing.assert_allclose(means[0], predictive.mean, rtol=1e-5)  # float32 rounding
    gradient = jax.grad(lambda o: Predictive((o, predictive.outputs[1]), *_rest(predictive)).mean.sum())
    np.testing.assert_allclose(gradient(jnp.asarray(location)), np.tile(WEIGHTS[:, None], 4), rtol=1e-5)


def _rest(predictive):
    return predictive.likelihood, predictive.log_weights


def test_what_does_not_apply_says_so():
    rng = np.random.default_rng(7)
    classes, normals = of_classes(rng)[0], of_normals(rng, (4, 2))[0]
    with pytest.raises(TypeError, match=r"probs are for classification.*Normal over targets of shape \(2,\)"):
        _ = normals.probs
    with pytest.raises(TypeError, match="class labels have no mean"):
        _ = classes.mean
    with pytest.raises(TypeError, match="class labels have no mean"):
        _ = classes.variance
    with pytest.raises(TypeError, match=r"cdf is for real targets.*CategoricalLogits"):
        classes.cdf(jnp.zeros(4))
    with pytest.raises(TypeError, match=r"quantile is for real targets.*CategoricalLogits"):
        classes.quantile(0.5)
    with pytest.raises(TypeError, match=r"mixture of normals is needed.*CategoricalLogits"):
        classes.normal_components()
    with pytest.raises(ValueError, match=r"targets have shape \(4,\), but the likelihood is over \(4, 2\)"):
        normals.log_prob(jnp.zeros(4))
    with pytest.raises(ValueError, match=r"targets have shape \(4, 1\), but the likelihood is over \(4,\)"):
        classes.log_prob(jnp.zeros((4, 1), int))
    several = Predictive(
        jnp.zeros((1, 4, 2)), likelihoods.from_function(lambda f: dist.BernoulliLogits(f).to_event(1)), jnp.zeros(1)
    )
    with pytest.raises(TypeError, match=r"probs are for classification.*BernoulliLogits over targets of shape \(2,\)"):
        _ = several.probs


def test_dependent_outputs_have_no_marginal_cdf():
    likelihood = likelihoods.from_function(lambda f: dist.MultivariateNormal(f, jnp.eye(2)))
    predictive = Predictive(jnp.zeros((1, 4, 2)), likelihood, jnp.zeros(1))
    with pytest.raises(TypeError, match=r"cdf is for real targets that are independent.*MultivariateNormal"):
        predictive.cdf(jnp.zeros((4, 2)))
