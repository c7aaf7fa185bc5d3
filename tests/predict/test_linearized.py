from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gaussian_cases import BY_NAME, CASES
from linear_gaussian import FIXTURE, fixture_problem, joint, tree
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import expit, softmax
from scipy.stats import multivariate_normal, norm

import bayestl as btl
from bayestl import gaussians, likelihoods, predict
from tests.predict.answers import answer

SHAPES = {"dense_0": {"bias": (4,), "kernel": (3, 4)}, "head": {"bias": (2,), "kernel": (4, 2)}}


def mean_tree(rng):
    return jax.tree.map(lambda s: rng.normal(size=s), SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def network(params, inputs):
    hidden = jnp.tanh(inputs @ params["dense_0"]["kernel"] + params["dense_0"]["bias"])
    return hidden @ params["head"]["kernel"] + params["head"]["bias"]


def one_logit(params, inputs):
    return network(params, inputs)[:, 0]


def log_joint(function, params, likelihood):
    return btl.LogJoint(btl.nets.from_function(function, params), likelihood, None, num_data=10)


def jacobian(function, params, inputs):
    """(B, F, D), all of it at once."""
    rows = jax.jacrev(function)(jax.tree.map(jnp.asarray, params), inputs)
    lead = inputs.shape[0]
    parts = [np.asarray(r).reshape(lead, -1, int(np.prod(np.shape(m)))) for r, m in _pairs(rows, params)]
    return np.concatenate(parts, axis=2)


def _pairs(rows, params):
    return zip(jax.tree.leaves(rows), jax.tree.leaves(params), strict=True)


def raw(outputs):
    """A link that leaves things as they are."""
    return outputs


def gaussian(case, rng, mean):
    ingredients = case.draw(rng, mean)
    return case.build(mean, ingredients), case.covariance(mean, ingredients)


@pytest.mark.x64
@pytest.mark.representative(
    *("isotropic", "isotropic leaves", "diagonal", "broadcast", "low rank", "low rank negative", "low rank broadcast"),
    *("kronecker", "dense", "low rank on kronecker"),
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_moments_are_those_of_the_explicit_jacobian(case):
    rng = np.random.default_rng(0)
    mean, inputs = mean_tree(rng), rng.normal(size=(5, 3))
    posterior, covariance = gaussian(case, rng, mean)
    model = log_joint(network, mean, likelihoods.categorical())
    given = predict.linearized(model, posterior, raw, batch_size=2)(inputs)
    jac = jacobian(network, mean, inputs)
    # float64 rounding of two ways to the same sum
    np.testing.assert_allclose(given.mean[0], network(jax.tree.map(jnp.asarray, mean), inputs), rtol=1e-12)
    np.testing.assert_allclose(given.covariance[0], jac @ covariance @ jac.transpose(0, 2, 1), rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(given.covariance, np.swapaxes(given.covariance, -1, -2))
    np.testing.assert_array_equal(given.variance[0], np.diagonal(given.covariance[0], axis1=1, axis2=2))


@pytest.mark.x64
@pytest.mark.parametrize(
    ("prior", "kappa", "name"),
    [
        ("low rank", 1.0, "low_rank_prior"),
        ("isotropic", 1.0, "isotropic_prior_variance_2"),
        ("zero mean", 1.0, "isotropic_variance_2_zero_mean"),
        ("low rank", 2.0, "low_rank_prior_likelihood_power_2"),
    ],
)
def test_is_exact_for_a_linear_network(prior, kappa, name):
    structure, problem = fixture_problem(prior, kappa)
    posterior = gaussians.dense(tree(jnp.asarray(problem.mean)), problem.covariance)
    # x_star is in the order of the fixture, the network's columns are in that of the tree: the same, as in X.
    given = predict.linearized(joint(structure, problem), posterior)(np.array([FIXTURE["x_star"]]))
    answer = FIXTURE[name]
    np.testing.assert_allclose(given.mean, [answer["f_mean"]], rtol=1e-8)  # the figure
    np.testing.assert_allclose(given.function_variance(), [answer["f_var"]], rtol=1e-8)
    np.testing.assert_allclose(given.variance, [answer["y_var"]], rtol=1e-8)
    expected = norm.logpdf(0.3, answer["f_mean"], np.sqrt(answer["y_var"]))
    np.testing.assert_allclose(given.log_prob(np.array([0.3])), [expected], rtol=1e-8)


# ---------------------------------------------------------------- batches, parts, mixtures


class Setting(NamedTuple):
    mean: Any
    inputs: Any
    posterior: Any
    covariance: Any


def setting(case="low rank", num=7):
    rng = np.random.default_rng(1)
    mean, inputs = mean_tree(rng), jnp.asarray(rng.normal(size=(num, 3)))
    return Setting(mean, inputs, *gaussian(BY_NAME[case], rng, mean))


@pytest.mark.x64
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_nothing(batch_size):
    s = setting()
    model = log_joint(network, s.mean, likelihoods.categorical())
    given = predict.linearized(model, s.posterior, raw, batch_size=batch_size)(s.inputs)
    whole = predict.linearized(model, s.posterior, raw)(s.inputs)
    np.testing.assert_allclose(given.mean, whole.mean, rtol=1e-12)  # float64 rounding
    np.testing.assert_allclose(given.covariance, whole.covariance, rtol=1e-10, atol=1e-13)


def test_one_program_for_all_batches_and_posteriors():
    count = []

    def counting(params, inputs):
        count.append(1)
        return inputs @ params["w"]

    net = btl.nets.from_function(counting, {"w": jnp.zeros((3, 2))})
    model = btl.LogJoint(net, likelihoods.categorical(), None, num_data=1)
    predict.linearized(model, gaussians.isotropic(net.params, 1.0), batch_size=2)(jnp.ones((5, 3)))
    first = len(count)
    predict.linearized(model, gaussians.isotropic({"w": jnp.ones((3, 2))}, 2.0), batch_size=2)(jnp.ones((6, 3)))
    # Twice more for what is looked at first: shapes of the outputs, and look-ups. The program is not traced again.
    assert first == 3
    assert len(count) == first + 2


@pytest.mark.x64
def test_a_part_of_the_parameters():
    s = setting("dense")
    model = log_joint(network, s.mean, likelihoods.categorical())
    part = s.posterior.restrict("head/**")
    rest = btl.tree.select(jax.tree.map(jnp.asarray, s.mean), "dense_0/**")
    rows = slice(16, 26)
    jac = jacobian(network, s.mean, s.inputs)[..., rows]
    expected = jac @ s.covariance[rows, rows] @ jac.transpose(0, 2, 1)
    given = predict.linearized(model, btl.posteriors.Part(part, rest), raw)(s.inputs)
    np.testing.assert_allclose(given.covariance[0], expected, rtol=1e-9)  # float64 rounding
    conditioned = btl.infer.condition(model, s.mean, "head/**")
    other = predict.linearized(conditioned.joint, part, raw)(s.inputs)
    np.testing.assert_allclose(other.covariance, given.covariance, rtol=1e-10)
    np.testing.assert_allclose(other.mean, given.mean, rtol=1e-12)


@pytest.mark.x64
def test_a_mixture_is_linearised_around_each_mean():
    s = setting("diagonal")
    shifted = gaussians.diagonal(jax.tree.map(lambda m: m + 0.5, s.posterior.mean), s.posterior.diagonal)
    model = log_joint(network, s.mean, likelihoods.normal(0.4))
    log_weights = np.log([1.0, 3.0])
    targets = np.random.default_rng(2).normal(size=(7, 2))
    mixture = btl.Mixture((s.posterior, shifted), jnp.asarray(log_weights))
    both, one, two = (facts(predict.linearized(model, q)(s.inputs), targets) for q in (mixture, s.posterior, shifted))
    density = 0.25 * np.exp(one["log_prob"]) + 0.75 * np.exp(two["log_prob"])
    np.testing.assert_allclose(both["log_prob"], np.log(density), rtol=1e-10)
    mean = 0.25 * one["mean"] + 0.75 * two["mean"]
    np.testing.assert_allclose(both["mean"], mean, rtol=1e-12)
    within = 0.25 * one["variance"] + 0.75 * two["variance"]
    between = 0.25 * (one["mean"] - mean) ** 2 + 0.75 * (two["mean"] - mean) ** 2
    np.testing.assert_allclose(both["variance"], within + between, rtol=1e-10)
    np.testing.assert_allclose(np.diagonal(both["covariance"], axis1=1, axis2=2), within + between, rtol=1e-10)


# ---------------------------------------------------------------- regression


def regression(case="dense"):
    s = setting(case)
    model = log_joint(network, s.mean, likelihoods.normal(jnp.array([0.3, 0.7])))
    jac = jacobian(network, s.mean, s.inputs)
    covariance = jac @ s.covariance @ jac.transpose(0, 2, 1)
    mean = np.asarray(network(jax.tree.map(jnp.asarray, s.mean), s.inputs))
    return predict.linearized(model, s.posterior)(s.inputs), mean, covariance, np.diag([0.09, 0.49])


MOMENTS = ("mean", "variance", "function_variance", "expected_variance", "covariance", "function_covariance")


@jax.jit
def facts(given, targets):
    """All it says, in one program."""
    moments = {name: answer(given, name) for name in MOMENTS}
    more = {"log_prob": given.log_prob(targets), "cdf": given.cdf(targets), "quantile": given.quantile(0.2)}
    return {**moments, **more, "scale": given.normal_components()[1]}


@pytest.mark.x64
def test_regression_with_and_without_noise():
    given, mean, covariance, noise = regression()
    targets = np.random.default_rng(3).normal(size=mean.shape)
    own = np.diagonal(covariance, axis1=1, axis2=2)
    total = own + np.diag(noise)
    log_prob = [multivariate_normal.logpdf(targets[b], mean[b], covariance[b] + noise) for b in range(7)]
    expected = {
        "mean": mean,
        "function_variance": own,
        "expected_variance": np.broadcast_to(np.diag(noise), own.shape),
        "variance": total,
        "function_covariance": covariance,
        "covariance": covariance + noise,
        "scale": np.sqrt(total)[None],
        "cdf": norm.cdf(targets, mean, np.sqrt(total)),
        "quantile": norm.ppf(0.2, mean, np.sqrt(total)),
        "log_prob": log_prob,
    }
    found = facts(given, targets)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)  # float64 rounding
    report = btl.metrics.report(given, targets)
    assert list(report) == ["nll", "rmse", "crps", "interval_coverage"]
    np.testing.assert_allclose(report["nll"], -np.mean(log_prob), rtol=1e-9)


def test_draws_of_the_targets_have_its_covariance():
    given, mean, covariance, noise = regression()
    num = 20_000
    draws = np.asarray(given.sample(jax.random.key(0), num))
    assert draws.shape == (num, 7, 2)
    wanted = covariance + noise
    largest = np.max(np.diagonal(wanted, axis1=1, axis2=2))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * np.sqrt(largest / num))  # standard errors of a mean
    found = np.stack([np.cov(draws[:, b].T) for b in range(7)])
    np.testing.assert_allclose(found, wanted, atol=5 * largest * np.sqrt(2 / num))  # and of a variance


@pytest.mark.x64
def test_learned_noise_is_that_at_the_mean():
    s = setting("diagonal")
    net = btl.nets.with_log_scale(btl.nets.from_function(network, s.mean), jnp.array([0.5, 2.0]))
    posterior = gaussians.isotropic(net.params, scale=0.3)
    model = btl.LogJoint(net, likelihoods.normal(), None, num_data=3)
    given = predict.linearized(model, posterior)(s.inputs)
    jac = jacobian(network, s.mean, s.inputs)
    np.testing.assert_allclose(given.function_variance(), 0.09 * np.sum(jac**2, axis=2), rtol=1e-9)
    np.testing.assert_allclose(given.expected_variance(), np.broadcast_to([0.25, 4.0], (7, 2)), rtol=1e-12)
    # With draws in output space the noise is uncertain too: E[exp(2 s)] for s ~ N(log scale, 0.3^2).
    drawn = predict.linearized(model, posterior, predict.sampled(jax.random.key(0), 20_000))(s.inputs)
    expected = np.array([0.25, 4.0]) * np.exp(2 * 0.09)
    relative = np.sqrt(np.exp(4 * 0.09) - 1)  # of exp(2 s), a lognormal
    np.testing.assert_allclose(
        drawn.expected_variance(), np.broadcast_to(expected, (7, 2)), rtol=5 * relative / np.sqrt(20_000)
    )


# ---------------------------------------------------------------- links


def outputs_of(mean, covariance, likelihood):
    return predict.GaussianOutputs(
        jnp.asarray(mean)[None], jnp.asarray(covariance)[None], likelihood, jnp.zeros(1, jnp.asarray(mean).dtype)
    )


def random_outputs(classes, num=6, seed=0):
    rng = np.random.default_rng([seed, classes])
    root = rng.normal(size=(num, classes, classes))
    return 2 * rng.normal(size=(num, classes)), root @ root.transpose(0, 2, 1)


@pytest.mark.x64
def test_probit_of_one_logit_is_near_the_integral():
    mean, scale = (x.ravel() for x in np.meshgrid(np.linspace(-6, 6, 13), [0.0, 0.5, 1.0, 2.0, 4.0]))
    nodes, weights = hermegauss(150)
    exact = expit(mean[:, None] + scale[:, None] * nodes) @ weights / np.sqrt(2 * np.pi)
    given = predict.probit(outputs_of(mean, (scale**2)[:, None, None], likelihoods.bernoulli()))
    np.testing.assert_allclose(given.probs, expit(mean / np.sqrt(1 + np.pi / 8 * scale**2)), rtol=1e-12)
    # MacKay's approximation: its largest error, over all means and variances, is just below 0.02.
    assert 0.01 < np.max(np.abs(given.probs - exact)) < 0.02
    assert given.is_classification


@pytest.mark.x64
def test_links_for_several_classes_are_their_formulas():
    mean, covariance = random_outputs(4)
    outputs = outputs_of(mean, covariance, likelihoods.categorical())
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    shrunk = mean / np.sqrt(1 + np.pi / 8 * variance)
    np.testing.assert_allclose(predict.probit(outputs).probs, softmax(shrunk, axis=1), rtol=1e-12)
    ones = np.ones((1, 1, 4))
    spreads = {
        predict.mean_field_0: variance[:, :, None] * ones,
        predict.mean_field_1: variance[:, :, None] + variance[:, None, :],
        predict.mean_field_2: variance[:, :, None] + variance[:, None, :] - 2 * covariance,
    }
    for link, spread in spreads.items():
        terms = np.exp(-(mean[:, :, None] - mean[:, None, :]) / np.sqrt(1 + np.pi / 8 * spread))
        expected = 1 / terms.sum(axis=2)
        np.testing.assert_allclose(link(outputs).probs, expected / expected.sum(axis=1, keepdims=True), rtol=1e-10)


@pytest.mark.x64
def test_two_classes_are_one_logit():
    mean, covariance = random_outputs(2)
    two = predict.mean_field_2(outputs_of(mean, covariance, likelihoods.categorical())).probs
    difference = np.array([-1.0, 1.0])
    variance = (covariance @ difference) @ difference
    one = outputs_of(mean @ difference, variance[:, None, None], likelihoods.bernoulli())
    # p_c = 1 / (1 + exp(-d)) for both classes, which already sum to 1
    np.testing.assert_allclose(two[:, 1], predict.probit(one).probs, rtol=1e-12)
    for link in (predict.mean_field_0, predict.mean_field_1, predict.mean_field_2):
        np.testing.assert_array_equal(link(one).probs, predict.probit(one).probs)


@pytest.mark.x64
@pytest.mark.parametrize("link", [predict.probit, predict.mean_field_0, predict.mean_field_1, predict.mean_field_2])
def test_without_variance_a_link_is_the_softmax(link):
    mean, covariance = random_outputs(5)
    given = link(outputs_of(mean, 0 * covariance, likelihoods.categorical()))
    np.testing.assert_allclose(given.probs, softmax(mean, axis=1), rtol=1e-12)  # float64 rounding


@pytest.mark.x64
def test_sampled_link_is_the_integral():
    # Two of three directions carry all the variance: the covariance is singular.
    rng = np.random.default_rng(4)
    mean, root = rng.normal(size=(3, 3)), rng.normal(size=(3, 3, 2))
    nodes, weights = hermegauss(40)
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    logits = mean[:, None, :] + np.einsum("bij,nj->bni", root, grid)
    exact = np.einsum("n,bnc->bc", np.outer(weights, weights).ravel() / (2 * np.pi), softmax(logits, axis=2))
    num = 40_000
    link = predict.sampled(jax.random.key(0), num)
    given = link(outputs_of(mean, root @ root.transpose(0, 2, 1), likelihoods.categorical()))
    assert given.outputs.shape == (num, 3, 3)
    np.testing.assert_allclose(given.probs, exact, atol=5 * 0.5 / np.sqrt(num))  # a probability's spread is below 1/2
    again = link(outputs_of(mean, root @ root.transpose(0, 2, 1), likelihoods.categorical()))
    np.testing.assert_array_equal(given.outputs, again.outputs)


@pytest.mark.x64
def test_draws_of_a_mixture_carry_its_weights():
    mean, covariance = random_outputs(3)
    log_weights = np.log([0.2, 0.8])
    outputs = predict.GaussianOutputs(
        jnp.stack([mean, mean + 1]), jnp.stack([covariance, 0 * covariance]), likelihoods.categorical(), log_weights
    )
    given = predict.sampled(jax.random.key(0), 5)(outputs)
    assert given.outputs.shape == (10, 6, 3)
    np.testing.assert_allclose(np.exp(given.log_weights).sum(), 1.0, rtol=1e-12)
    sure = np.isclose(given.outputs, mean + 1).all(axis=(1, 2))
    np.testing.assert_allclose(np.exp(given.log_weights)[sure].sum(), 0.8, rtol=1e-12)


@pytest.mark.x64
def test_the_sampled_link_has_the_derivatives_of_the_square_root():
    rng = np.random.default_rng(5)
    mean, root = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 3))
    covariance = jnp.asarray(root @ root.transpose(0, 2, 1))

    def confidence(scale, covariance):
        outputs = outputs_of(mean, scale * covariance, likelihoods.categorical())
        return predict.sampled(jax.random.key(0), 5)(outputs).probs[0, 0]

    slope = jax.jit(jax.grad(confidence))
    step = 1e-5
    numeric = (confidence(1 + step, covariance) - confidence(1 - step, covariance)) / (2 * step)
    np.testing.assert_allclose(slope(1.0, covariance), numeric, rtol=1e-7)  # error of a central difference
    # Equal eigenvalues, where the eigenvectors have no derivative, and none at all.
    assert np.isfinite(slope(1.0, jnp.stack([jnp.eye(3), jnp.zeros((3, 3))])))


# ---------------------------------------------------------------- programs and precision


def test_under_jit_and_vmap_over_posteriors():
    s = setting("diagonal")
    model = log_joint(network, s.mean, likelihoods.categorical())

    def probs(scale, inputs):
        return predict.linearized(model, gaussians.isotropic(s.mean, scale), batch_size=3)(inputs).probs

    step = 1e-2
    together = jax.jit(jax.vmap(probs, in_axes=(0, None)))(jnp.array([0.1, 1.0, 1 - step, 1 + step]), s.inputs)
    np.testing.assert_allclose(together[1], probs(1.0, s.inputs), atol=1e-5)  # float32 matrix products
    gradient = jax.jit(jax.grad(lambda scale, inputs: probs(scale, inputs)[0, 0]))(1.0, s.inputs)
    # float32 differences
    np.testing.assert_allclose(gradient, (together[3] - together[2])[0, 0] / (2 * step), rtol=1e-2)


def test_outputs_have_at_least_float32():
    s = setting("diagonal")

    def low(params, inputs):
        return network(jax.tree.map(lambda x: x.astype(jnp.bfloat16), params), inputs.astype(jnp.bfloat16))

    given = predict.linearized(log_joint(low, s.mean, likelihoods.categorical()), s.posterior, raw)(s.inputs)
    assert given.mean.dtype == given.covariance.dtype == jnp.float32
    exact = predict.linearized(log_joint(network, s.mean, likelihoods.categorical()), s.posterior, raw)(s.inputs)
    # bfloat16 has 8 bits; what it computes is the derivative of the network, to a few times its rounding
    np.testing.assert_allclose(given.variance, exact.variance, rtol=0.1)


def test_a_convolutional_network_on_pictures():
    net = btl.nets.conv_net(jax.random.key(0), (4, 4, 1), (3,), num_classes=2, activation=jax.nn.tanh)
    model = btl.LogJoint(net, likelihoods.categorical(), None, num_data=5)
    pictures = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 1)), jnp.float32)
    given = predict.linearized(model, gaussians.isotropic(net.params, 0.5), raw)(pictures)
    jac = jacobian(lambda params, x: net(params, x), net.params, pictures)
    np.testing.assert_allclose(given.covariance[0], 0.25 * jac @ jac.transpose(0, 2, 1), rtol=1e-4)  # float32 sums
    together = predict.linearized_joint(model, gaussians.isotropic(net.params, 0.5), batch_size=2)(pictures)
    rows = jac.reshape(6, -1)
    np.testing.assert_allclose(together.output_covariance, 0.25 * rows @ rows.T, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- bad input


def test_what_cannot_be_linearised_says_so():
    s = setting("diagonal")
    model = log_joint(network, s.mean, likelihoods.categorical())
    with pytest.raises(
        TypeError, match=r"posterior is a Point, but a linearised network needs a Gaussian.*monte_carlo"
    ):
        predict.linearized(model, btl.Point(s.mean))
    with pytest.raises(TypeError, match=r"posterior is a Point, but a linearised network needs a Gaussian"):
        predict.linearized(model, btl.Mixture((s.posterior, btl.Point(s.mean)), jnp.zeros(2)))
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        predict.linearized(model, s.posterior, batch_size=0)
    with pytest.raises(ValueError, match="num_samples is 0; at least 1 draw"):
        predict.sampled(jax.random.key(0), 0)
    counts = likelihoods.from_function(lambda f: dist.Poisson(jnp.exp(f[:, 0])))
    with pytest.raises(TypeError, match=r"link is needed for a FromFunction likelihood.*predict.sampled"):
        predict.linearized(log_joint(network, s.mean, counts), s.posterior)(s.inputs)
    drawn = predict.linearized(log_joint(network, s.mean, counts), s.posterior, predict.sampled(jax.random.key(0), 4))
    assert drawn(s.inputs).mean.shape == (7,)
    with pytest.raises(TypeError, match=r"mean_field_1 is a link for categorical and bernoulli.*this one is a Normal"):
        predict.mean_field_1(outputs_of(np.zeros(3), np.ones((3, 1, 1)), likelihoods.normal(1.0)))
    with pytest.raises(TypeError, match=r"gaussian_noise is a link for normal likelihoods.*Categorical"):
        predict.linearized(model, s.posterior, predict.gaussian_noise)(s.inputs)

    def with_one_scale(params, inputs):
        return one_logit(params, inputs), params["head"]["bias"][0]

    shared = log_joint(with_one_scale, s.mean, likelihoods.normal())
    with pytest.raises(ValueError, match=r"outputs at '1' have shape \(\), but must begin with the 7 examples"):
        predict.linearized(shared, s.posterior)(s.inputs)


def test_regression_has_no_probs():
    given = regression("diagonal")[0]
    with pytest.raises(TypeError, match="probs are for classification"):
        _ = given.probs
    with pytest.raises(ValueError, match=r"targets have shape \(7,\), but the likelihood is over \(7, 2\)"):
        given.log_prob(np.zeros(7))
