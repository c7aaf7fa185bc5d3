"""Kinds of curvature against Hessians by automatic differentiation and gradients written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import bayestl as btl
from bayestl import curvature

KEY = jax.random.key(0)


def _labels(outputs):
    return dist.BernoulliLogits(outputs).to_event(1)


def _several_classes(outputs):
    return dist.CategoricalLogits(2 * outputs.reshape(-1, 2, 3)).to_event(1)


LIKELIHOODS = {
    "categorical": (btl.likelihoods.categorical(), (4,), 4),
    "bernoulli": (btl.likelihoods.bernoulli(), (), 1),
    "normal": (lambda: btl.likelihoods.normal(jnp.array([0.5, 2.0, 1.0])), (3,), 3),
    "normal, one output": (lambda: btl.likelihoods.normal(0.3), (), 1),
    "several labels": (btl.likelihoods.from_function(_labels), (3,), 3),
    "several classes, scaled": (btl.likelihoods.from_function(_several_classes), (6,), 6),
}


@pytest.mark.x64
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_ggn_columns_are_a_root_of_the_output_hessian(name):
    likelihood, shape, num_columns = LIKELIHOODS[name]
    likelihood = likelihood() if name.startswith("normal") else likelihood
    outputs = 2 * jax.random.normal(KEY, (5, *shape))
    columns = jax.jit(lambda outputs: curvature.ggn(KEY, likelihood, outputs, None))(outputs)
    assert columns.shape == (num_columns, *outputs.shape)
    targets = likelihood(outputs).sample(jax.random.key(1))

    def negative(one, target):
        return -likelihood(one[None]).log_prob(target[None])[0]

    # These likelihoods are log-linear in their outputs up to a linear map, so that no target is in the Hessian.
    hessians = jax.jit(jax.vmap(jax.hessian(negative)))(outputs, targets)
    flat = columns.reshape(num_columns, 5, -1)
    found = jnp.einsum("kna,knb->nab", flat, flat)
    np.testing.assert_allclose(found, hessians.reshape(found.shape), rtol=1e-10, atol=1e-12)


@pytest.mark.x64
def test_ggn_of_a_linear_softmax_model_is_its_hessian():
    rng = np.random.default_rng(0)
    inputs, targets = jnp.asarray(rng.normal(size=(7, 3))), jnp.asarray(rng.integers(0, 4, 7))
    params = {"bias": jnp.asarray(rng.normal(size=4)), "kernel": jnp.asarray(rng.normal(size=(3, 4)))}

    def network(params, inputs):
        return inputs @ params["kernel"] + params["bias"]

    net = btl.nets.from_function(network, params)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=7)
    data = btl.data.arrays(inputs, targets)
    found = curvature.dense()(KEY, joint, params, data, curvature.ggn, 3).matrix
    flat, unflat = jax.flatten_util.ravel_pytree(params)

    def negative(flat):
        logits = network(unflat(flat), inputs)
        return -jnp.sum(logits[jnp.arange(7), targets] - jax.scipy.special.logsumexp(logits, axis=1))

    np.testing.assert_allclose(found, jax.hessian(negative)(flat), rtol=1e-10, atol=1e-12)


@pytest.mark.x64
def test_empirical_fisher_is_the_sum_of_outer_products_of_gradients():
    net = btl.nets.with_log_scale(btl.nets.mlp(KEY, (3, 4, 2)), jnp.array([0.5, 2.0]))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), net.params)
    rng = np.random.default_rng(1)
    inputs, targets = jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.normal(size=(5, 2)))
    joint = btl.LogJoint(net, btl.likelihoods.normal(), None, num_data=5)
    data = btl.data.arrays(inputs, targets)
    found = curvature.dense()(KEY, joint, params, data, curvature.empirical_fisher, 2).matrix
    flat, unflat = jax.flatten_util.ravel_pytree(params)

    def log_normal(flat, x, y):
        params = unflat(flat)
        layers = params["net"]
        hidden = jax.nn.relu(x @ layers["dense_0"]["kernel"] + layers["dense_0"]["bias"])
        location = hidden @ layers["head"]["kernel"] + layers["head"]["bias"]
        return jnp.sum(jax.scipy.stats.norm.logpdf(y, location, jnp.exp(params["log_scale"])))

    gradients = jax.vmap(jax.grad(log_normal), (None, 0, 0))(flat, inputs, targets)
    np.testing.assert_allclose(found, gradients.T @ gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.x64
def test_fisher_from_sampled_labels_is_the_fisher_information():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3)))
    num = 100_000
    columns = curvature.fisher(num)(KEY, btl.likelihoods.categorical(), logits, None)
    each = num * columns[:, :, :, None] * columns[:, :, None, :]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    exact = p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :]
    # Six standard errors of the mean over independent labels.
    assert np.all(np.abs(each.mean(0) - exact) < 6 * each.std(0) / np.sqrt(num) + 1e-12)


def test_low_precision_outputs_give_float32_columns():
    logits = jnp.zeros((2, 3), jnp.bfloat16)
    for kind in (curvature.ggn, curvature.empirical_fisher, curvature.fisher(2)):
        columns = jax.eval_shape(lambda kind=kind: kind(KEY, btl.likelihoods.categorical(), logits, jnp.zeros(2, int)))
        assert columns.dtype == jnp.float32


def test_automatic_differentiation_needs_targets():
    likelihood = btl.likelihoods.from_function(dist.Poisson)
    with pytest.raises(ValueError, match=r"targets are None, but the Hessian of a FromFunction likelihood.*give them"):
        curvature.ggn(KEY, likelihood, jnp.ones(2), None)


@pytest.mark.x64
def test_a_learned_noise_has_the_fisher_information_of_mean_and_log_scale():
    rng = np.random.default_rng(3)
    inputs, targets = rng.normal(size=(6, 2)), rng.normal(size=6)
    net = btl.nets.with_log_scale(btl.nets.from_function(lambda p, x: x @ p["w"], {"w": jnp.array([1.0, -2.0])}), 0.5)
    joint = btl.LogJoint(net, btl.likelihoods.normal(), None, num_data=6)
    data = btl.data.arrays(jnp.asarray(inputs), jnp.asarray(targets))
    matrix = curvature.dense()(KEY, joint, net.params, data, curvature.ggn, 3).matrix
    # In the order log_scale, w: 2 for every example, and X^T X / scale^2.
    expected = np.zeros((3, 3))
    expected[0, 0], expected[1:, 1:] = 2 * 6, inputs.T @ inputs / 0.5**2
    np.testing.assert_allclose(matrix, expected, rtol=1e-10, atol=1e-12)


def test_a_fisher_needs_a_sample():
    with pytest.raises(ValueError, match="num_samples is 0; at least 1 sampled label"):
        curvature.fisher(0)
