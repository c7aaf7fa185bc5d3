"""Densities of counts, heavy tails, shares, orders and labels against scipy's, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit, log_expit

import bayestl as btl
from bayestl import likelihoods
from bayestl.predict._links import default_link

OUTPUTS = np.array([-2.0, -0.3, 0.0, 1.5])
COUNTS, REAL, SHARES = np.array([0, 3, 1, 7]), np.array([-9.0, 0.0, 0.2, 40.0]), np.array([0.01, 0.5, 0.97, 0.6])
CASES = {
    "poisson": (lambda: likelihoods.poisson(), COUNTS, lambda f, y: stats.poisson.logpmf(y, np.exp(f))),
    "negative_binomial": (
        lambda: likelihoods.negative_binomial(2.5),
        COUNTS,
        lambda f, y: stats.nbinom.logpmf(y, 2.5, 2.5 / (2.5 + np.exp(f))),
    ),
    "student_t": (lambda: likelihoods.student_t(4.0, 0.5), REAL, lambda f, y: stats.t.logpdf(y, 4.0, f, 0.5)),
    "laplace": (lambda: likelihoods.laplace(0.7), REAL, lambda f, y: stats.laplace.logpdf(y, f, 0.7)),
    "beta": (lambda: likelihoods.beta(3.0), SHARES, lambda f, y: stats.beta.logpdf(y, 3 * expit(f), 3 * expit(-f))),
}


@pytest.mark.x64
@pytest.mark.parametrize("name", CASES)
def test_log_densities_are_those_of_scipy(name):
    make, targets, expected = CASES[name]
    given = make()(jnp.asarray(OUTPUTS)).log_prob(jnp.asarray(targets))
    # numpyro's negative binomial goes through JAX's log beta function, which has some seven digits.
    rtol = 1e-6 if name == "negative_binomial" else 1e-9
    np.testing.assert_allclose(given, expected(OUTPUTS, targets), rtol=rtol)


@pytest.mark.x64
def test_ordinal_is_the_difference_of_logistic_functions_and_holds_far_out():
    cuts, outputs = np.array([-1.0, 0.5, 1.0]), np.array([-2.0, 0.3, 4.0])
    below = expit(cuts - outputs[:, None])
    expected = np.diff(np.concatenate([np.zeros((3, 1)), below, np.ones((3, 1))], 1), axis=1)
    likelihood = likelihoods.ordinal(jnp.asarray(cuts))
    predictive = btl.predict.Predictive(jnp.asarray(outputs)[None], likelihood, jnp.zeros(1))
    np.testing.assert_allclose(predictive.probs, expected, rtol=1e-10)
    far = likelihood(jnp.array([500.0, -500.0])).log_prob(jnp.array([1, 2]))
    # sigmoid(a) - sigmoid(b) ~ exp(a) - exp(b) far out on the left, and by symmetry on the right.
    expected = [-500 + np.log(np.exp(0.5) - np.exp(-1.0)), -500 + np.log(np.exp(-0.5) - np.exp(-1.0))]
    np.testing.assert_allclose(far, expected, rtol=1e-10)
    assert np.isfinite(jax.grad(lambda f: likelihood(f).log_prob(jnp.array([1]))[0])(jnp.array([500.0]))).all()


@pytest.mark.x64
def test_labels_are_independent_and_noise_is_each_examples_own():
    logits, labels = np.array([[1.0, -2.0], [0.5, 0.0]]), np.array([[1, 1], [0, 1]])
    given = likelihoods.multi_label()(jnp.asarray(logits)).log_prob(jnp.asarray(labels))
    np.testing.assert_allclose(given, log_expit(np.where(labels == 1, logits, -logits)).sum(1))
    outputs, targets = np.array([[0.0, -1.0], [2.0, 0.5]]), np.array([0.3, 4.0])
    given = likelihoods.heteroscedastic_normal()(jnp.asarray(outputs)).log_prob(jnp.asarray(targets))
    np.testing.assert_allclose(given, stats.norm.logpdf(targets, outputs[:, 0], np.exp(outputs[:, 1])))


def counts_and_zeros(outputs):
    return dist.ZeroInflatedPoisson(jax.nn.sigmoid(outputs[:, 0]), jnp.exp(outputs[:, 1]))


@pytest.mark.x64
def test_zero_inflated_counts_from_a_function():
    """The density of scipy, and a maximum likelihood that is the closed form of its two equations."""
    outputs, counts = np.array([[-1.0, 0.5], [0.3, 1.0], [2.0, -0.4]]), np.array([0, 4, 1])
    likelihood = likelihoods.from_function(counts_and_zeros)
    share, poisson = expit(outputs[:, 0]), stats.poisson.pmf(counts, np.exp(outputs[:, 1]))
    expected = np.log(share * (counts == 0) + (1 - share) * poisson)
    np.testing.assert_allclose(likelihood(jnp.asarray(outputs)).log_prob(jnp.asarray(counts)), expected, rtol=1e-10)
    # One pair of outputs for all: rate / (1 - exp(-rate)) is the mean of the counts above 0, and (1 - share) of that
    # many are above 0.
    counts = np.array([0, 0, 0, 0, 0, 3, 2, 5, 4, 2])
    above = counts[counts > 0]
    rate = brentq(lambda rate: rate / -np.expm1(-rate) - above.mean(), 0.1, 20)
    share = 1 - len(above) / len(counts) / -np.expm1(-rate)
    net = btl.nets.from_function(lambda params, x: x[:, None] * params["both"], {"both": jnp.array([0.0, 0.5])})
    joint = btl.LogJoint(net, likelihood, btl.gaussians.isotropic(btl.tree.zeros_like(net.params), 1e3), num_data=10)
    data = btl.data.arrays(jnp.ones(10), jnp.asarray(counts))
    method = btl.infer.map_estimate(joint, optax.adam(optax.cosine_decay_schedule(0.1, 600)))
    fitted = btl.fit(jax.random.key(0), method, net.params, data, steps=600, batch_size=10, progress=False)
    np.testing.assert_allclose(expit(fitted.params["both"][0]), share, rtol=1e-4)
    np.testing.assert_allclose(np.exp(fitted.params["both"][1]), rate, rtol=1e-4)
    with pytest.warns(RuntimeWarning, match="not concave in the outputs"):
        posterior = btl.infer.laplace(jax.random.key(1), joint, fitted.params, data, curvature=btl.curvature.dense())
    predictive = btl.predict.linearized(joint, posterior, btl.predict.sampled(jax.random.key(2), 200))(jnp.ones(10))
    assert np.isfinite(btl.metrics.report(predictive, jnp.asarray(counts))["nll"])
    with pytest.raises(ValueError, match="outside the support"):
        btl.metrics.nll(predictive, jnp.full(10, -1))


@pytest.mark.x64
def test_linearised_predictions_with_noise_of_the_input_add_the_two_variances():
    mean, covariance = np.array([[[1.0, -0.5]]]), np.array([[[[0.3, 0.1], [0.1, 0.2]]]])
    outputs = btl.predict.GaussianOutputs(
        jnp.asarray(mean), jnp.asarray(covariance), likelihoods.heteroscedastic_normal(), jnp.zeros(1)
    )
    given = default_link(outputs)
    np.testing.assert_allclose(given.mean, [1.0])
    np.testing.assert_allclose(given.variance, [0.3 + np.exp(-1.0)])


@pytest.mark.x64
def test_linearised_probabilities_of_several_labels_are_averaged_one_by_one():
    mean, root = np.array([1.0, -0.5, 0.2]), np.array([[0.9, 0.0, 0.0], [0.3, 1.1, 0.0], [-0.2, 0.1, 0.4]])
    outputs = btl.predict.GaussianOutputs(
        jnp.asarray(mean)[None, None], jnp.asarray(root @ root.T)[None, None], likelihoods.multi_label(), jnp.zeros(1)
    )
    z = np.linspace(-8, 8, 2001)
    weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    expected = expit(mean[:, None] + z * np.sqrt(np.diag(root @ root.T))[:, None]) @ weights
    # MacKay's approximation is off by at most 0.02.
    np.testing.assert_allclose(default_link(outputs).mean[0], expected, atol=0.02)


def test_a_laplace_posterior_of_counts_has_the_precision_of_their_rates():
    """One log rate for all: at the mode the rate is the mean count, and the precision the sum of all counts."""
    net = btl.nets.from_function(lambda params, x: params["rate"] * x, {"rate": jnp.array(np.log(3.0), jnp.float32)})
    data = btl.data.arrays(jnp.ones(4), jnp.array([1, 2, 4, 5]))
    joint = btl.LogJoint(net, likelihoods.poisson(), btl.gaussians.isotropic(net.params, 1e3))
    posterior = btl.infer.laplace(jax.random.key(0), joint, net.params, data, curvature=btl.curvature.dense())
    assert float(posterior.variance["rate"]) == pytest.approx(1 / 12, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: likelihoods.negative_binomial(0.0), r"concentration is 0.0; it is how little counts vary"),
        (lambda: likelihoods.student_t(4.0, -1.0), r"scale is -1.0; it is a width, above 0 and finite"),
        (lambda: likelihoods.laplace(np.inf), r"scale is inf"),
        (lambda: likelihoods.ordinal([1.0, 1.0]), r"must ascend"),
        (lambda: likelihoods.ordinal([[1.0]]), r"give the C - 1 places between C classes"),
        (lambda: likelihoods.heteroscedastic_normal()(jnp.zeros((3, 1))), r"takes outputs \(B, ..., 2\)"),
        (lambda: likelihoods.heteroscedastic_normal()((jnp.zeros((3, 1)),) * 2), r"got \(\(3, 1\), \(3, 1\)\)"),
    ],
)
def test_numbers_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("targets", [[-1, 0, 0, 0], [0.5, 0.0, 0.0, 0.0]])
def test_targets_outside_the_support_are_refused(targets):
    predictive = btl.predict.Predictive(jnp.zeros((1, 4)), likelihoods.poisson(), jnp.zeros(1))
    with pytest.raises((ValueError, TypeError), match="targets"):
        btl.metrics.nll(predictive, jnp.array(targets))
