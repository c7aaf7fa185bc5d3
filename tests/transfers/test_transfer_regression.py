"""The front door for regression: a linear network, of which ridge regression gives every number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import bayestl as btl
from bayestl.transfers import _regression

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
    assert result.trust[0].weight > 0.8
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


def test_the_noise_of_many_targets_is_what_left_out_ones_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_regression, "MOST_TARGETS", 50)
    inputs, targets = rows(60, 0.3)
    train = btl.Batch(jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32))
    source = {"w": jnp.asarray(TRUTH + 0.1 * RNG.normal(size=6), jnp.float32)}
    result = btl.transfer(jax.random.key(0), NET, source, train, btl.likelihoods.normal(), num_scales=7, steps=150)
    assert "fitted again" in result.criterion
    noise = result.noises[0]
    assert 0.2 < noise < 0.4

    # The best member is the mode under its prior and the noise that was learned for it, not that of the steps.
    prior: Any = result.prior
    start, scale = np.asarray(prior.mean["w"], float), float(prior.diagonal["w"])
    pulled = np.linalg.solve(inputs.T @ inputs + np.eye(6) * noise**2 / scale, inputs.T @ (targets - inputs @ start))
    np.testing.assert_allclose(result.single.params["w"], start + pulled, atol=1e-3)

    # A mixture of normals around its members, each with its own noise.
    x, y = rows(200, 0.3)
    predictive = result.predict(jnp.asarray(x, jnp.float32))
    shares = np.exp(result.posterior.log_weights - np.logaddexp.reduce(result.posterior.log_weights))
    means = np.stack([x @ np.asarray(point.params["w"]) for point in result.posterior.components], 1)
    density = (shares * scipy.stats.norm.pdf(y[:, None], means, result.noises)).sum(1)
    np.testing.assert_allclose(predictive.log_prob(jnp.asarray(y, jnp.float32)), np.log(density), atol=2e-3)
    assert -np.log(density).mean() < -scipy.stats.norm.logpdf(y, x @ TRUTH, 0.3).mean() + 0.1
    assert result.held_out == pytest.approx(np.log(density).mean(), abs=0.3)
    variance = float(np.mean(result.left_out.predictive.variance))
    assert variance == pytest.approx(
        float(np.mean((targets - np.asarray(result.left_out.predictive.mean)) ** 2)), rel=0.1
    )

    result.save(tmp_path / "r.bayestl")
    again = btl.TransferResult.load(tmp_path / "r.bayestl", NET, btl.likelihoods.normal(1.0))
    np.testing.assert_array_equal(again.predict(jnp.asarray(x, jnp.float32)).mean, predictive.mean)


def test_a_given_noise_stays_and_a_criterion_without_predictions_cannot_tell_one():
    inputs, targets = rows(12, 0.3)
    train = btl.Batch(jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32))
    source = {"w": jnp.asarray(TRUTH, jnp.float32)}
    options: dict[str, Any] = {"criterion": btl.tune.k_fold(np.arange(12) % 3), "num_scales": 2, "steps": 5}
    given = btl.transfer(jax.random.key(0), NET, source, train, btl.likelihoods.normal(0.3), **options)
    np.testing.assert_allclose(given.noises, 0.3, rtol=1e-6)
    with pytest.raises(ValueError, match="criterion is a Evidence, which gives no predictions"):
        btl.transfer(jax.random.key(0), NET, source, train, btl.likelihoods.normal(), criterion=btl.tune.evidence())
