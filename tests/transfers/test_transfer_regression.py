"""The front door for regression: a linear network, of which ridge regression gives every number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

import bayestl as btl

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(size=6)
NET = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.asarray(RNG.normal(size=6), jnp.float32)})


def rows(num: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    inputs = RNG.normal(size=(num, 6))
    return inputs, inputs @ TRUTH + noise * RNG.normal(size=num)


def test_noise_and_trust_are_learned_and_members_are_ridge_regressions(tmp_path: Path):
    inputs, targets = rows(12, 0.3)
    train = btl.Batch(jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32))
    source = {"w": jnp.asarray(TRUTH + 0.1 * RNG.normal(size=6), jnp.float32)}
    result = btl.transfer(jax.random.key(0), NET, source, train, btl.likelihoods.normal(), num_scales=7, steps=100)
    assert result.trust[0].name == "source"
    assert result.trust[0].weight > 0.9
    noise = result.noises[0]
    assert 0.15 < noise < 0.6  # from twelve examples, of which the truth has 0.3

    # The best member: mean and covariance of ridge regression under its prior and its noise.
    prior: Any = result.prior
    start, scale = np.asarray(prior.mean["w"], float), float(prior.diagonal["w"])
    covariance = np.linalg.inv(inputs.T @ inputs / noise**2 + np.eye(6) / scale)
    mean = start + covariance @ inputs.T @ (targets - inputs @ start) / noise**2
    np.testing.assert_allclose(result.single.mean["w"], mean, atol=5e-3)
    x, y = rows(200, 0.3)
    given = btl.predict.linearized(result.joint.replace(likelihood=btl.likelihoods.normal(noise)), result.single)
    variance = np.einsum("ni,ij,nj->n", x, covariance, x) + noise**2
    np.testing.assert_allclose(given(jnp.asarray(x, jnp.float32)).variance, variance, rtol=2e-3)

    # The mixture scores near what the truth itself would.
    predictive = result.predict(jnp.asarray(x, jnp.float32))
    best = -scipy.stats.norm.logpdf(y, x @ TRUTH, 0.3).mean()
    assert float(btl.metrics.nll(predictive, jnp.asarray(y, jnp.float32))) < best + 0.3

    result.save(tmp_path / "r.bayestl")
    again = btl.TransferResult.load(tmp_path / "r.bayestl", NET, btl.likelihoods.normal(1.0))
    np.testing.assert_array_equal(again.predict(jnp.asarray(x, jnp.float32)).mean, predictive.mean)
