"""The linear model of a regression against brute force in numpy and scipy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import bayestl as btl

RNG = np.random.default_rng(3)
ROOT = RNG.normal(size=(8, 5))
MODEL = btl.tune.LinearModel(ROOT @ ROOT.T, RNG.normal(size=8), 4)


def test_leaving_out_is_conditioning():
    """Four examples of two targets: the conditional density of each pair, from the joint covariance."""
    covariance = MODEL.gram + 0.3 * np.eye(8)
    for example, value in enumerate(MODEL.left_out(0.3)):
        own = np.arange(8) // 2 == example
        gain = covariance[np.ix_(own, ~own)] @ np.linalg.inv(covariance[np.ix_(~own, ~own)])
        mean = gain @ MODEL.targets[~own]
        spread = covariance[np.ix_(own, own)] - gain @ covariance[np.ix_(~own, own)]
        expected = scipy.stats.multivariate_normal.logpdf(MODEL.targets[own], mean, spread)
        assert value == pytest.approx(expected, abs=1e-10)
        errors, deviations = (each[example] for each in MODEL.left_out_errors(0.3))
        np.testing.assert_allclose(errors, MODEL.targets[own] - mean, atol=1e-10)
        np.testing.assert_allclose(deviations, np.sqrt(np.diag(spread)), atol=1e-10)


def test_the_noise_is_that_of_the_largest_evidence():
    expected = scipy.stats.multivariate_normal.logpdf(MODEL.targets, np.zeros(8), MODEL.gram + 0.3 * np.eye(8))
    assert MODEL.log_evidence(0.3) == pytest.approx(expected, abs=1e-10)
    best = scipy.optimize.minimize_scalar(lambda x: -MODEL.log_evidence(np.exp(x)), bounds=(-9, 1), method="bounded")
    assert np.log(MODEL.best_variance(1.0)) == pytest.approx(best.x, abs=1e-3)


def test_other_likelihoods_are_refused():
    net = btl.nets.mlp(jax.random.key(0), (2, 2))
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), btl.gaussians.isotropic(net.params, 1.0), num_data=1)
    with pytest.raises(TypeError, match="likelihood is a Categorical"):
        btl.tune.linear_model(joint, net.params, btl.Batch(jnp.ones((1, 2)), jnp.zeros(1, int)))
