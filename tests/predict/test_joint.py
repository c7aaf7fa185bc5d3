import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_cases import BY_NAME
from scipy.stats import multivariate_normal

import bayestl as btl
from bayestl import gaussians, likelihoods, predict
from tests.predict.answers import answer

NOISE = np.array([0.3, 0.7])


def network(params, inputs):
    return jnp.tanh(inputs @ params["w"]) @ params["v"] + params["b"]


def setting(num=5, case="dense"):
    rng = np.random.default_rng(0)
    mean = {"b": rng.normal(size=2), "v": rng.normal(size=(4, 2)), "w": rng.normal(size=(3, 4))}
    inputs = jnp.asarray(rng.normal(size=(num, 3)))
    ingredients = BY_NAME[case].draw(rng, mean)
    posterior, covariance = BY_NAME[case].build(mean, ingredients), BY_NAME[case].covariance(mean, ingredients)
    rows = jax.jacrev(network)(jax.tree.map(jnp.asarray, mean), inputs)
    jac = np.concatenate([np.asarray(x).reshape(2 * num, -1) for x in jax.tree.leaves(rows)], axis=1)
    return mean, inputs, posterior, jac @ covariance @ jac.T


def log_joint(mean, likelihood, function=network):
    return btl.LogJoint(btl.nets.from_function(function, mean), likelihood, None, num_data=10)


@pytest.mark.x64
@pytest.mark.parametrize("batch_size", [None, 2])
def test_all_outputs_are_one_gaussian(batch_size):
    mean, inputs, posterior, covariance = setting()
    model = log_joint(mean, likelihoods.normal(jnp.asarray(NOISE)))
    given = predict.linearized_joint(model, posterior, batch_size=batch_size)(inputs)
    noisy = covariance + np.diag(np.tile(NOISE**2, 5))
    targets = np.random.default_rng(1).normal(size=(5, 2))
    expected = np.asarray(network(jax.tree.map(jnp.asarray, mean), inputs))
    found = facts(given, targets)
    np.testing.assert_allclose(found["mean"], expected, rtol=1e-12)  # float64 rounding, here and below
    np.testing.assert_allclose(given.output_covariance, covariance, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found["function_covariance"], covariance, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found["covariance"], noisy, rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(given.output_covariance, given.output_covariance.T)
    density = multivariate_normal.logpdf(targets.ravel(), expected.ravel(), noisy)
    np.testing.assert_allclose(found["log_prob"], density, rtol=1e-9)
    # Each example by itself is what `linearized` says of it.
    single = predict.linearized(model, posterior)(inputs)
    blocks = np.asarray(found["covariance"]).reshape(5, 2, 5, 2)
    np.testing.assert_allclose(np.stack([blocks[b, :, b] for b in range(5)]), single.covariance(), rtol=1e-9)


@jax.jit
def facts(given, targets):
    """All it says, in one program."""
    names = ("mean", "function_covariance", "covariance")
    return {"log_prob": given.log_prob(targets), **{name: answer(given, name) for name in names}}


@pytest.mark.x64
def test_learned_noise_is_no_part_of_the_function():
    mean, inputs, posterior, covariance = setting()
    net = btl.nets.with_log_scale(btl.nets.from_function(network, mean), NOISE)
    scales = gaussians.isotropic(net.params, scale=0.1)
    whole = gaussians.by_path({"net/**": _wrapped(posterior), "**": scales}, like=net.params)
    given = predict.linearized_joint(btl.LogJoint(net, likelihoods.normal(), None, num_data=3), whole)(inputs)
    assert given.output_covariance.shape == (20, 20)
    np.testing.assert_allclose(given.function_covariance(), covariance, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(given.covariance(), covariance + np.diag(np.tile(NOISE**2, 5)), rtol=1e-9, atol=1e-11)


def _wrapped(posterior):
    return gaussians.dense({"net": posterior.mean}, posterior.covariance())


@pytest.mark.x64
def test_classes_by_draws_of_all_outputs_together():
    mean, inputs, posterior, covariance = setting()
    given = predict.linearized_joint(log_joint(mean, likelihoods.categorical()), posterior)(inputs)
    num = 20_000
    drawn = given.sampled(jax.random.key(0), num)
    assert drawn.outputs.shape == (num, 5, 2)
    found = np.cov(np.asarray(drawn.outputs).reshape(num, -1).T)
    # the standard error of a covariance of normals
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / num)
    assert np.all(np.abs(found - covariance) < 5 * error)
    labels = np.array([0, 1, 1, 0, 0])
    assert drawn.joint_log_prob(labels).shape == ()
    with pytest.raises(TypeError, match=r"joint normal density under normal likelihoods.*Categorical.*joint_log_prob"):
        given.log_prob(labels)
    with pytest.raises(ValueError, match="num_samples is 0; at least 1 draw"):
        given.sampled(jax.random.key(0), 0)


@pytest.mark.x64
def test_samples_have_the_covariance_of_their_mixture():
    rng = np.random.default_rng(2)
    location, scale = rng.normal(size=(3, 4, 2)), rng.uniform(0.3, 1.5, size=(3, 4, 2))
    weights = np.array([0.2, 0.5, 0.3])
    fixed = predict.Predictive(jnp.asarray(location), likelihoods.normal(jnp.asarray(NOISE)), jnp.log(weights))
    given = predict.joint_from_samples(fixed)
    covariance = np.cov(location.reshape(3, -1).T, aweights=weights, ddof=0)
    np.testing.assert_allclose(given.mean, np.einsum("s,sbc->bc", weights, location), rtol=1e-12)
    np.testing.assert_allclose(given.function_covariance(), covariance, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(np.diag(given.function_covariance()), np.ravel(fixed.function_variance()), rtol=1e-10)
    np.testing.assert_allclose(np.diag(given.covariance()), np.ravel(fixed.variance), rtol=1e-10)
    learned = predict.Predictive((jnp.asarray(location), jnp.log(scale)), likelihoods.normal(), jnp.log(weights))
    given = predict.joint_from_samples(learned)
    np.testing.assert_allclose(given.function_covariance(), covariance, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(np.diag(given.covariance()), np.ravel(learned.variance), rtol=1e-10)
    logits = predict.Predictive(jnp.asarray(location), likelihoods.categorical(), jnp.log(weights))
    np.testing.assert_allclose(predict.joint_from_samples(logits).output_covariance, covariance, atol=1e-14)


def test_under_jit_and_vmap():
    mean, inputs, _, _ = setting()
    model = log_joint(mean, likelihoods.normal(1.0))

    def log_prob(scale, inputs):
        posterior = gaussians.isotropic(mean, scale)
        return predict.linearized_joint(model, posterior, batch_size=2)(inputs).log_prob(jnp.zeros((5, 2)))

    together = jax.jit(jax.vmap(log_prob, in_axes=(0, None)))(jnp.array([0.1, 1.0]), inputs)
    np.testing.assert_allclose(together[1], log_prob(1.0, inputs), rtol=1e-4)  # float32 sums


def test_bad_input():
    mean, inputs, posterior, _ = setting()
    model = log_joint(mean, likelihoods.normal(1.0))
    with pytest.raises(TypeError, match=r"posterior is a Samples, but a linearised network needs a Gaussian"):
        predict.linearized_joint(model, btl.Samples(jax.tree.map(lambda x: x[None], mean), jnp.zeros(1)))
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        predict.linearized_joint(model, posterior, batch_size=0)
    with pytest.raises(ValueError, match=r"targets have shape \(5,\), but the likelihood is over \(5, 2\)"):
        predict.linearized_joint(model, posterior)(inputs).log_prob(np.zeros(5))
