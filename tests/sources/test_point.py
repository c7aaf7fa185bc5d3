"""One set of weights as a prior: L2-SP."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import bayestl as btl

WEIGHTS = {"head": jnp.array([1.0, -2.0]), "body": jnp.array([[0.5]])}
PARAMS = {"head": jnp.array([0.0, 1.0]), "body": jnp.array([[2.0]])}


def test_penalty_is_the_squared_distance_to_the_source():
    prior = btl.sources.point(WEIGHTS, 0.5)
    truth = stats.norm.logpdf([0.0, 1.0, 2.0], [1.0, -2.0, 0.5], 0.5).sum()
    np.testing.assert_allclose(prior.log_prob(PARAMS), truth, rtol=1e-6)
    np.testing.assert_allclose(prior.squared_mahalanobis(PARAMS) / 2, (1 + 9 + 2.25) / (2 * 0.5**2), rtol=1e-6)


def test_scale_per_leaf():
    prior = btl.sources.point(WEIGHTS, {"head": 2.0, "body": 0.1})
    truth = stats.norm.logpdf([0.0, 1.0, 2.0], [1.0, -2.0, 0.5], [2.0, 2.0, 0.1]).sum()
    np.testing.assert_allclose(prior.log_prob(PARAMS), truth, rtol=1e-6)


def test_refuses():
    for scale in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="scale"):
            btl.sources.point(WEIGHTS, scale)
    with pytest.raises(ValueError, match="mean at 'head' has 1 non-finite of 2 values"):
        btl.sources.point({**WEIGHTS, "head": jnp.array([1.0, jnp.nan])}, 1.0)
