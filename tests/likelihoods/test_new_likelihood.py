"""A likelihood that exists only here, in one class, has curvature, posteriors, predictions and scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import poisson

import bayestl as btl
from bayestl import curvature

KEY = jax.random.key(0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LogPoisson:
    """Counts with rate ``exp f``."""

    def __call__(self, outputs: Any) -> dist.Distribution:
        return dist.Poisson(jnp.exp(outputs))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KnowsMore(LogPoisson):
    """The same with what it knows: its Hessian, and the rate whose mean is the averaged one, ``exp(f + v / 2)``."""

    def hessian_root(self, outputs: Any) -> Any:
        return jnp.exp(0.5 * outputs)[None]

    def moderated(self, mean: Any, covariance: Any) -> Any:
        return mean + 0.5 * covariance[..., 0, 0]


RNG = np.random.default_rng(0)
INPUTS, WEIGHTS = RNG.normal(size=(8, 2)), np.array([0.4, -0.3])
COUNTS = RNG.poisson(np.exp(INPUTS @ WEIGHTS))
PRECISION = INPUTS.T @ (np.exp(INPUTS @ WEIGHTS)[:, None] * INPUTS) + np.eye(2)


def _problem(likelihood: Any) -> Any:
    net = btl.nets.from_function(lambda p, x: x @ p["w"], {"w": jnp.asarray(WEIGHTS)})
    joint = btl.LogJoint(net, likelihood, btl.gaussians.isotropic(net.params, scale=1.0), num_data=8)
    data = btl.data.arrays(jnp.asarray(INPUTS), jnp.asarray(COUNTS))
    return joint, btl.infer.laplace(KEY, joint, net.params, data, curvature=curvature.dense())


@pytest.mark.x64
@pytest.mark.parametrize("likelihood", [LogPoisson(), KnowsMore()], ids=["density alone", "knows more"])
def test_laplace_and_linearised_predictions(likelihood):
    joint, posterior = _problem(likelihood)
    covariance = np.linalg.inv(PRECISION)
    np.testing.assert_allclose(posterior.precision_mv({"w": jnp.eye(2)[0]})["w"], PRECISION[0], rtol=1e-8)
    given = btl.predict.linearized(joint, posterior)(jnp.asarray(INPUTS))
    mean, variance = INPUTS @ WEIGHTS, np.einsum("na,ab,nb->n", INPUTS, covariance, INPUTS)
    # E exp(f) for a normal f; the quadrature of 32 nodes is exact to float64 here.
    np.testing.assert_allclose(given.mean, np.exp(mean + variance / 2), rtol=1e-8)
    if type(likelihood) is LogPoisson:
        z = np.linspace(-8, 8, 4001)[:, None]
        weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
        expected = np.sum(weights * poisson.pmf(COUNTS, np.exp(mean + z * np.sqrt(variance))), axis=0)
        np.testing.assert_allclose(given.log_prob(COUNTS), np.log(expected), rtol=1e-8)
    scores = btl.metrics.report(given, COUNTS)
    np.testing.assert_allclose(scores["nll"], -np.mean(given.log_prob(COUNTS)), rtol=1e-10)
    np.testing.assert_allclose(scores["rmse"], np.sqrt(np.mean((COUNTS - given.mean) ** 2)), rtol=1e-10)


def test_counts_below_zero_are_refused():
    joint, posterior = _problem(LogPoisson())
    given = btl.predict.linearized(joint, posterior)(jnp.asarray(INPUTS))
    with pytest.raises(ValueError, match="1 of 8 targets lie outside the support of the likelihood: they go from -1"):
        given.check_targets(np.where(np.arange(8) == 2, -1, 3))


def test_chains_are_looked_at_by_their_expected_counts():
    joint, _ = _problem(LogPoisson())
    expected = btl.diagnostics.expected_targets(joint, jnp.asarray(INPUTS))({"w": jnp.asarray(WEIGHTS)})
    np.testing.assert_allclose(expected, np.exp(INPUTS @ WEIGHTS), rtol=1e-5)
