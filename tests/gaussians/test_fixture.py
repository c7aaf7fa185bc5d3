"""The worked linear-Gaussian example: its numbers were computed elsewhere, by dense float64 algebra."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import gaussians

pytestmark = pytest.mark.x64

FIXTURE = json.loads((Path(__file__).parent.parent / "fixtures" / "linear_gaussian.json").read_text())
# The fixture's numbers carry 16 digits, and the algebra on three parameters loses one or two.
RTOL = 1e-12


def _tree(values) -> dict:
    """Three parameters in two leaves; leading axes are kept."""
    values = np.asarray(values)
    return {"a": values[..., :2], "b": values[..., 2]}


def _flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(tree["a"]), np.asarray(tree["b"])[..., None]], axis=-1)


def _low_rank() -> gaussians.LowRank:
    factor = np.asarray(FIXTURE["low_rank_factor"]).T
    return jax.jit(gaussians.low_rank)(_tree(FIXTURE["prior_mean"]), _tree(FIXTURE["low_rank_diag"]), _tree(factor))


PRIORS = {
    "low_rank_prior": _low_rank,
    "isotropic_prior_variance_2": lambda: gaussians.isotropic(_tree(FIXTURE["prior_mean"]), np.sqrt(2.0)),
    "isotropic_variance_2_zero_mean": lambda: gaussians.diagonal(_tree(np.zeros(3)), 2.0),
}


def _log_likelihood(theta: np.ndarray) -> float:
    residual = np.asarray(FIXTURE["y"]) - np.asarray(FIXTURE["X"]) @ theta
    return float(-0.5 * np.sum(residual**2 / FIXTURE["sigma2"] + np.log(2 * np.pi * FIXTURE["sigma2"])))


def test_log_prob_of_the_low_rank_prior():
    log_prob = _low_rank().log_prob(_tree(np.zeros(3)))
    np.testing.assert_allclose(log_prob, FIXTURE["low_rank_prior_log_prob_at_zero"], rtol=RTOL)


@pytest.mark.parametrize("name", PRIORS)
def test_bayes_rule(name):
    """prior x likelihood = evidence x posterior, at any parameters: four known numbers and two log densities."""
    known = FIXTURE[name]
    prior, posterior = PRIORS[name](), gaussians.dense(_tree(known["mean"]), np.asarray(known["cov"]))
    for theta in np.random.default_rng(0).normal(size=(5, 3)):
        joint = prior.log_prob(_tree(theta)) + _log_likelihood(theta)
        np.testing.assert_allclose(joint - posterior.log_prob(_tree(theta)), known["log_evidence"], rtol=1e-11)


@pytest.mark.parametrize("name", PRIORS)
def test_posterior_moments(name):
    """The joint is stationary at the posterior mean, and the posterior's precision the sum of both precisions."""
    known, prior = FIXTURE[name], PRIORS[name]()
    x, y, mean = np.asarray(FIXTURE["X"]), np.asarray(FIXTURE["y"]), np.asarray(known["mean"])
    precision = np.stack([_flat(prior.precision_mv(_tree(unit))) for unit in np.eye(3)])
    np.testing.assert_allclose(np.linalg.inv(precision + x.T @ x / FIXTURE["sigma2"]), known["cov"], rtol=1e-11)
    gradient = _flat(jax.grad(prior.log_prob)(_tree(jnp.asarray(mean))))
    # Both terms are of size ten; they cancel to rounding at the posterior mean.
    np.testing.assert_allclose(gradient + x.T @ (y - x @ mean) / FIXTURE["sigma2"], 0, atol=1e-12)


def test_swag_covariance():
    """The one covariance of SWAG in the fixture, as low rank plus diagonal."""
    swag = FIXTURE["swag"]
    iterates = np.asarray(swag["iterates"])
    deviations = iterates[-swag["kept"] :] - np.asarray(swag["mean"])
    # Three deviations of two parameters: R of their QR decomposition has the same product and a rank that fits.
    factor = np.linalg.qr(deviations / np.sqrt(2 * (swag["kept"] - 1)), mode="r")
    g = jax.jit(gaussians.low_rank)(
        {"w": np.asarray(swag["mean"])}, {"w": 0.5 * np.asarray(swag["variance"])}, {"w": factor}
    )
    covariance = np.stack([np.asarray(g.covariance_mv({"w": unit})["w"]) for unit in np.eye(2)])
    np.testing.assert_allclose(covariance, swag["cov"], rtol=RTOL)
