"""The variance of the outputs as a score for examples from elsewhere, against dense matrices in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import likelihoods, predict

RNG = np.random.default_rng(0)
SIZES, NUM = (3, 4, 2), 12
PARAMS = {"a": RNG.normal(size=SIZES[:2]), "b": RNG.normal(size=SIZES[1:])}
INPUTS, NEW = RNG.normal(size=(NUM, 3)), 3 * RNG.normal(size=(5, 3))


def network(params, inputs):
    return jnp.tanh(inputs @ params["a"]) @ params["b"]


def jacobian(inputs):
    """(B, C, D)."""
    rows = jax.jacrev(network)(jax.tree.map(jnp.asarray, PARAMS), inputs)
    return np.concatenate([np.asarray(rows[name]).reshape(len(inputs), SIZES[2], -1) for name in "ab"], axis=2)


def laplace(likelihood, targets):
    net = btl.nets.from_function(network, jax.tree.map(jnp.asarray, PARAMS))
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), 0.8)
    joint = btl.LogJoint(net, likelihood, prior, num_data=NUM)
    data = btl.data.arrays(jnp.asarray(INPUTS), jnp.asarray(targets))
    return joint, btl.infer.laplace(jax.random.key(0), joint, net.params, data, curvature=btl.curvature.dense())


@pytest.mark.x64
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_is_that_of_the_dense_posterior(kind):
    outputs = np.asarray(network(PARAMS, INPUTS))
    if kind == "classes":
        joint, posterior = laplace(likelihoods.categorical(), RNG.integers(2, size=NUM))
        probs = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
        hessians = np.einsum("nc,cd->ncd", probs, np.eye(2)) - np.einsum("nc,nd->ncd", probs, probs)
        centre = np.eye(2) - 0.5
    else:
        joint, posterior = laplace(likelihoods.normal(0.5), RNG.normal(size=(NUM, 2)))
        hessians, centre = np.broadcast_to(4 * np.eye(2), (NUM, 2, 2)), np.eye(2)
    rows = jacobian(INPUTS)
    precision = np.einsum("nca,ncd,ndb->ab", rows, hessians, rows) + np.eye(rows.shape[2]) / 0.8**2
    new = jacobian(NEW)
    covariance = new @ np.linalg.inv(precision) @ new.transpose(0, 2, 1)
    expected = np.trace(centre @ covariance @ centre, axis1=1, axis2=2)
    given = predict.linearized(joint, posterior, predict.function_variance)(jnp.asarray(NEW))
    np.testing.assert_allclose(given, expected, rtol=1e-8)
    if kind == "numbers":  # the same as the predictive says of each output
        each = predict.linearized(joint, posterior)(jnp.asarray(NEW)).function_variance()
        np.testing.assert_allclose(given, each.sum(1), rtol=1e-8)


@pytest.mark.x64
def test_a_number_added_to_all_logits_is_no_uncertainty():
    shared = predict.GaussianOutputs(
        jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 3, 3)), likelihoods.categorical(), jnp.zeros(1)
    )
    np.testing.assert_allclose(predict.function_variance(shared), 0, atol=1e-15)
    one = predict.GaussianOutputs(jnp.zeros((1, 2)), jnp.full((1, 2, 1, 1), 4.0), likelihoods.bernoulli(), jnp.zeros(1))
    np.testing.assert_allclose(predict.function_variance(one), 4.0)


@pytest.mark.x64
def test_of_a_mixture_it_is_that_of_draws():
    rng = np.random.default_rng(1)
    mean, roots = rng.normal(size=(2, 1, 3)), rng.normal(size=(2, 1, 3, 3))
    log_weights = jnp.log(jnp.array([0.3, 0.7]))
    outputs = predict.GaussianOutputs(
        jnp.asarray(mean), jnp.asarray(roots @ roots.swapaxes(-1, -2)), likelihoods.categorical(), log_weights
    )
    which = rng.random(200_000) < 0.7
    draws = np.where(which[:, None], *((mean[s, 0] + rng.normal(size=(200_000, 3)) @ roots[s, 0].T) for s in (1, 0)))
    draws -= draws.mean(1, keepdims=True)
    expected = draws.var(0).sum()
    # Fourth moments of such sums are near to those of normals: five standard errors.
    np.testing.assert_allclose(predict.function_variance(outputs), expected, rtol=5 * np.sqrt(6 / 200_000))


@pytest.mark.x64
def test_a_learned_noise_does_not_count():
    mean = (jnp.zeros((1, 2, 1)), jnp.zeros((1, 2, 1)))
    covariance = jnp.broadcast_to(jnp.diag(jnp.array([4.0, 9.0])), (1, 2, 2, 2))
    outputs = predict.GaussianOutputs(mean, covariance, likelihoods.normal(), jnp.zeros(1))
    np.testing.assert_allclose(predict.function_variance(outputs), 4.0)


def test_it_tells_unknown_examples_in_a_table():
    joint, posterior = laplace(likelihoods.categorical(), (INPUTS[:, 0] > 0).astype(int))
    score = predict.linearized(joint, posterior, predict.function_variance)
    known, far = btl.data.arrays(INPUTS, (INPUTS[:, 0] > 0).astype(int)), btl.data.arrays(4 * NEW, np.zeros(5, int))
    table = btl.metrics.evaluate(
        jax.random.key(1),
        predict.linearized(joint, posterior),
        {"test": known, "ood/far": far},
        unknown_scores={"function_variance": lambda inputs, given: score(inputs)},
        num_bootstrap=0,
    )
    expected = btl.metrics.auroc(score(INPUTS), score(4 * NEW))
    assert table["ood/far", "auroc of function_variance"].value == pytest.approx(expected)
    assert expected > 0.6
