"""Monte-Carlo dropout against the exact moments of a linear network under dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import bayestl as btl

KEEP = 0.6
INPUTS = jnp.array([[1.0, 2.0, -1.0, 0.5], [0.3, -2.0, 1.0, 1.5], [1.0, 1.0, 1.0, 1.0]])
WEIGHTS = jnp.array([0.5, -1.0, 2.0, 0.7])


class _Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Dropout(1 - KEEP, deterministic=not train)(x)
        return linen.Dense(1, use_bias=False)(x)[..., 0]


class _NNX(nnx.Module):
    def __init__(self):
        self.dropout = nnx.Dropout(1 - KEEP, rngs=nnx.Rngs(0))
        self.dense = nnx.Linear(4, 1, use_bias=False, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.dense(self.dropout(x))[..., 0]


def _linen(train):
    variables = {"params": {"Dense_0": {"kernel": WEIGHTS[:, None]}}}
    return btl.nets.from_linen(_Linen(), variables, train={"train": train})


def _nnx():
    module = _NNX()
    module.dense.kernel[...] = WEIGHTS[:, None]
    return btl.nets.from_nnx(module)


def _predict(net, num_samples, key=0, **options):
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.1), None, num_data=3)
    return btl.predict.mc_dropout(jax.random.key(key), joint, net.params, num_samples, **options)


@pytest.mark.parametrize("make", [lambda: _linen(True), _nnx], ids=["linen", "nnx"])
def test_moments_of_a_linear_network_are_exact(make):
    num = 4000
    outputs = np.asarray(_predict(make(), num)(INPUTS).outputs, np.float64)
    x, w = np.asarray(INPUTS, np.float64), np.asarray(WEIGHTS, np.float64)
    # f = sum_i x_i w_i m_i / keep with masks m_i shared by all inputs.
    mean, covariance = x @ w, (x * w**2) @ x.T * (1 - KEEP) / KEEP
    assert np.all(np.abs(outputs.mean(0) - mean) < 5 * np.sqrt(np.diag(covariance) / num))
    centred = outputs - mean
    products = centred[:, :, None] * centred[:, None, :]
    assert np.all(np.abs(products.mean(0) - covariance) < 5 * products.std(0) / np.sqrt(num))


def test_the_predictive_is_the_mixture_with_noise():
    predictive = _predict(_linen(True), 50)(INPUTS)
    outputs = np.asarray(predictive.outputs)
    np.testing.assert_allclose(predictive.mean, outputs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(predictive.variance, outputs.var(0) + 0.01, rtol=1e-4)


def test_the_key_decides_and_neither_the_batch_nor_the_chunk():
    net = _linen(True)
    first = _predict(net, 20)(INPUTS).outputs
    assert np.array_equal(first, _predict(net, 20)(INPUTS).outputs)
    assert not np.allclose(first, _predict(net, 20, key=1)(INPUTS).outputs)
    # The same masks; products of another shape may be summed in another order.
    for options in ({"batch_size": 2}, {"sample_chunk": 7}):
        np.testing.assert_allclose(first, _predict(net, 20, **options)(INPUTS).outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first[:, 1:2], _predict(net, 20)(INPUTS[1:2]).outputs, rtol=1e-5, atol=1e-6)


class _WithNorm(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dense(1)(linen.Dropout(0.5, deterministic=not train)(x))[..., 0]


def test_running_statistics_are_used_and_must_be_frozen():
    module = _WithNorm()
    variables = module.init(jax.random.key(0), INPUTS)
    net = btl.nets.from_linen(module, variables, train={"train": True}, evaluate={"train": False})
    outputs = _predict(net, 2000)(INPUTS).outputs
    # Dropout keeps the mean, so that the average is near the deterministic network, with its running statistics.
    error = outputs.std(0) / np.sqrt(2000)
    assert np.all(np.abs(outputs.mean(0) - net(net.params, INPUTS)) < 5 * error)
    with pytest.raises(ValueError, match=r"running statistics change when it is given a key.* nets.frozen_state"):
        _predict(btl.nets.trained_state(net), 5)(INPUTS)


def test_refuses():
    with pytest.raises(ValueError, match=r"the same outputs under every key.* train=\{'train': True\}"):
        _predict(_linen(False), 5)(INPUTS)
    with pytest.raises(ValueError, match="num_samples is 1; an average over masks needs at least 2"):
        _predict(_linen(True), 1)
    for name in ("batch_size", "sample_chunk"):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
            _predict(_linen(True), 5, **{name: 0})
