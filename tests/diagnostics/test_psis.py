"""k-hat where the tail of the weights is known, and against ArviZ."""

from __future__ import annotations

import numpy as np
import pytest

import bayestl as btl
from bayestl.diagnostics import psis, psis_khat


def _log_pareto(shape: float, seed: int, num: int) -> np.ndarray:
    """Logs of generalised Pareto numbers of scale 1, by inversion."""
    u = np.random.default_rng(seed).uniform(size=num)
    return np.log(np.expm1(-shape * np.log(u)) / shape)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9, 1.5])
def test_finds_the_shape_of_pareto_weights(shape):
    found = [psis_khat(_log_pareto(shape, seed, 20_000)) for seed in range(40)]
    # The tail of a generalised Pareto is one of the same shape. The estimate from M = 425 numbers has the asymptotic
    # standard deviation (1 + k) / sqrt(M) of maximum likelihood, and is drawn to 0.5 by 10 parts in 435.
    expected = (425 * shape + 5) / 435
    assert abs(np.mean(found) - expected) < 5 * (1 + shape) / np.sqrt(425 * 40) + 0.01
    assert np.std(found) < 1.5 * (1 + shape) / np.sqrt(425)


@pytest.mark.parametrize(("width", "shape"), [(0.9, 0.19), (0.6, 0.64), (0.45, 0.7975)])
def test_gaussians_of_different_widths(width, shape):
    # q = N(0, w^2), p = N(0, 1): weights exp(x^2 (1/w^2 - 1)/2) have a tail of index 1/k = w^2 / (1 - w^2) + 1, up to a
    # logarithm; so k = 1 - w^2. The logarithm makes it look lower at any finite number of draws.
    assert shape == pytest.approx(1 - width**2)
    found = []
    for seed in range(10):
        x = width * np.random.default_rng(seed).normal(size=10_000)
        found.append(psis_khat(-0.5 * x**2 + 0.5 * (x / width) ** 2))
    assert shape - 0.25 < np.mean(found) < shape + 0.03


def test_a_wide_approximation_has_no_tail():
    x = 2 * np.random.default_rng(0).normal(size=4000)
    assert psis_khat(-0.5 * x**2 + 0.5 * (x / 2) ** 2) < 0


def test_smoothed_weights_correct_an_average():
    # E[x^2] under N(0, 1) from draws of N(0, 0.7^2): k = 0.51, where raw weights are noisy.
    errors: dict[str, list[float]] = {"raw": [], "smoothed": []}
    for seed in range(60):
        x = 0.7 * np.random.default_rng(seed).normal(size=1000)
        raw = -0.5 * x**2 + 0.5 * (x / 0.7) ** 2
        for name, log_weights in (("raw", raw), ("smoothed", psis(raw).log_weights)):
            weights = np.exp(log_weights - log_weights.max())
            errors[name].append(np.sum(weights * x**2) / np.sum(weights) - 1)
    # Without weights the answer is 0.49.
    assert abs(np.mean(errors["smoothed"])) < 0.1
    assert np.sqrt(np.mean(np.square(errors["smoothed"]))) < np.sqrt(np.mean(np.square(errors["raw"])))
    found = psis(raw)
    np.testing.assert_allclose(np.exp(found.log_weights).sum(), 1.0)
    small = np.argsort(raw)[:900]
    np.testing.assert_allclose(np.diff(found.log_weights[small]), np.diff(raw[small]), atol=1e-10)


def test_agrees_with_arviz():
    arviz = pytest.importorskip("arviz")
    for seed, num in ((0, 100), (1, 1000), (2, 5001)):
        rng = np.random.default_rng(seed)
        log_weights = rng.normal(size=num) * rng.uniform(0.5, 3) + 1000
        smoothed, khat = (np.asarray(x) for x in arviz.psislw(log_weights.copy()))
        found = psis(log_weights)
        np.testing.assert_allclose(found.khat, khat, atol=1e-8)
        np.testing.assert_allclose(found.log_weights, smoothed, atol=1e-8)


@pytest.mark.parametrize(
    "log_weights",
    [[0.0] + [-100.0] * 255, [0.0] * 3 + [-100.0] * 253, np.linspace(-421_487, -25_885, 200), [0.0] + [-np.inf] * 99],
    ids=["one", "three", "far apart", "alone"],
)
def test_a_few_weights_that_outweigh_all_others(log_weights):
    """All of the mean is in fewer draws than a tail is fitted to: no number of draws like these would do."""
    assert psis_khat(log_weights) == np.inf


def test_ties_of_weights_that_differ_little():
    """Twice as much for a tenth of the draws: the weights have a variance of 0.07 squared means."""
    assert psis_khat([0.0] * 90 + [np.log(2.0)] * 10) == -np.inf


def test_edges():
    assert psis_khat(np.zeros(100)) == -np.inf
    np.testing.assert_allclose(psis(np.full(4, 7.0)).log_weights, -np.log(4))
    assert np.isnan(psis_khat(np.arange(10.0)))
    # Draws at which the target has no density weigh nothing.
    log_weights = np.random.default_rng(0).normal(size=500)
    log_weights[:50] = -np.inf
    assert np.isneginf(psis(log_weights).log_weights[:50]).all()
    assert np.isfinite(psis_khat(log_weights))
    with pytest.raises(ValueError, match=r"log_weights has shape \(2, 3\); give one number per draw"):
        psis(np.zeros((2, 3)))
    for value in (-np.inf, np.inf):
        with pytest.raises(ValueError, match=f"the largest of log_weights is {value}"):
            psis(np.full(50, value))
    with pytest.raises(ValueError, match="log_weights has 1 NaN among 3"):
        btl.diagnostics.psis_khat([0.0, np.nan, 1.0])
