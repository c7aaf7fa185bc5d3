"""Importance weights against dense densities in float64, and the pass over all data."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import bayestl as btl

NUM, SIZE = 13, 3


def _case(temperature: float = 1.0, kappa: float = 1.0) -> tuple[btl.LogJoint, Any, Any, Any]:
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(NUM, SIZE)), rng.normal(size=NUM)
    params = {"w": jnp.zeros(2), "b": jnp.zeros(1)}
    net = btl.nets.from_function(lambda p, x: x @ jnp.concatenate([p["w"], p["b"]]), params)
    prior = btl.gaussians.low_rank(params, 0.5, {"w": jnp.array([[1.0, -1.0]]), "b": jnp.array([[0.5]])})
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.7), prior, num_data=NUM, kappa=kappa, temperature=temperature)
    q = btl.gaussians.diagonal({"w": jnp.array([0.1, -0.2]), "b": jnp.ones(1)}, {"w": jnp.full(2, 0.3), "b": 0.2})
    return joint, q, inputs, targets


def _expected(draws: Any, inputs: np.ndarray, targets: np.ndarray, kappa: float, temperature: float) -> np.ndarray:
    theta = np.concatenate([np.asarray(draws["w"], np.float64), np.asarray(draws["b"], np.float64)], axis=1)
    factor = np.array([[1.0, -1.0, 0.5]])
    likelihood = stats.norm(theta @ inputs.T, 0.7).logpdf(targets).sum(1)
    prior = stats.multivariate_normal(np.zeros(3), 0.5 * np.eye(3) + factor.T @ factor).logpdf(theta)
    q = stats.multivariate_normal([0.1, -0.2, 1.0], np.diag([0.3, 0.3, 0.2])).logpdf(theta)
    return (kappa * likelihood + prior) / temperature - q


@pytest.mark.parametrize(("kappa", "temperature"), [(1.0, 1.0), (2.0, 0.5), (0.0, 1.0)])
def test_weights(kappa, temperature):
    joint, q, inputs, targets = _case(temperature, kappa)
    draws = q.sample(jax.random.key(0), 7)
    data = btl.data.arrays(inputs, targets)
    expected = _expected(draws, inputs, targets, kappa, temperature)
    for batch_size in (5, 100):
        found = btl.diagnostics.log_importance_weights(joint, q, draws, data, batch_size=batch_size)
        # The log likelihoods are those of float32.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_streamed_data_are_passed_over_once():
    joint, q, inputs, targets = _case()
    records = [{"x": x.astype(np.float32), "y": np.float32(y)} for x, y in zip(inputs, targets, strict=True)]
    data = btl.data.stream(records, lambda record: (record["x"], record["y"]))
    draws = q.sample(jax.random.key(0), 4)
    found = btl.diagnostics.log_importance_weights(joint, q, draws, data, batch_size=5)
    np.testing.assert_allclose(found, _expected(draws, inputs, targets, 1.0, 1.0), rtol=1e-5, atol=1e-4)


def test_densities_of_very_many_parameters_keep_their_difference():
    # q is the prior, and there is no data: every weight is 1, though each log density is of the order of 1e6.
    size = 1_000_000
    net = btl.nets.from_function(lambda p, x: x @ p["w"][:1], {"w": jnp.zeros(size)})
    prior = btl.gaussians.isotropic(net.params, 1e-3)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=2, kappa=0.0)
    q = btl.gaussians.diagonal(net.params, {"w": jnp.full(size, 1e-6)})
    data = btl.data.arrays(np.ones((2, 1)), np.ones(2))
    found = btl.diagnostics.log_importance_weights(joint, q, q.sample(jax.random.key(0), 3), data)
    # Scale squared is 1e-6 up to one rounding of float32, 6e-8, times a quadratic form of 1e6 half.
    assert np.ptp(found) < 1e-3
    assert not jax.config.jax_enable_x64


def test_refuses():
    joint, q, inputs, targets = _case()
    with pytest.raises(TypeError, match="a Point has no log_prob"):
        btl.diagnostics.log_importance_weights(joint, btl.Point(q.mean), {}, btl.data.arrays(inputs, targets))
