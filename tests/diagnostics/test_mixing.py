"""R-hat and effective sample sizes: chains whose autocorrelation is known, and ArviZ."""

from __future__ import annotations

import numpy as np
import pytest

from bayestl.diagnostics import ess, ess_tail, r_hat


def _autoregressive(rho: float, chains: int, num: int, seed: int) -> np.ndarray:
    """``x_t = rho x_(t-1) + noise``, stationary, of variance 1."""
    rng = np.random.default_rng(seed)
    noise = np.sqrt(1 - rho**2) * rng.normal(size=(chains, num))
    x = np.empty((chains, num))
    x[:, 0] = rng.normal(size=chains)
    for t in range(1, num):
        x[:, t] = rho * x[:, t - 1] + noise[:, t]
    return x


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_effective_sample_size_of_autoregressive_chains(rho):
    x = _autoregressive(rho, 4, 5000, seed=1)
    # 1 + 2 sum rho^t = (1 + rho) / (1 - rho); an estimate from 20,000 draws is good to some 10 %.
    np.testing.assert_allclose(ess(x), 20_000 * (1 - rho) / (1 + rho), rtol=0.12)
    assert abs(r_hat(x) - 1) < 0.01


def test_r_hat_sees_chains_apart_and_chains_of_other_widths():
    x = _autoregressive(0.3, 4, 1000, seed=2)
    assert r_hat(x) < 1.01
    assert r_hat(x + np.array([0.0, 0.0, 0.0, 1.0])[:, None]) > 1.05
    assert r_hat(x * np.array([1.0, 1.0, 1.0, 3.0])[:, None]) > 1.05
    # A drift within one chain is seen by its halves.
    assert r_hat(x[:1] + np.linspace(0, 2, 1000)) > 1.05


def test_agrees_with_arviz():
    arviz = pytest.importorskip("arviz")
    x = np.stack([_autoregressive(rho, 3, 400, seed) for seed, rho in enumerate((0.0, 0.4, 0.8))], axis=-1)
    x[..., 1] = np.exp(3 * x[..., 1])
    for k in range(3):
        values = np.ascontiguousarray(x[..., k])
        np.testing.assert_allclose(r_hat(x)[k], float(arviz.rhat(values)), atol=1e-5)
        # Geyer's sequence is cut a step earlier or later in the two.
        np.testing.assert_allclose(ess(x)[k], float(arviz.ess(values, method="bulk")), rtol=0.05)
        np.testing.assert_allclose(ess_tail(x)[k], float(arviz.ess(values, method="tail")), rtol=0.05)


def test_shapes_ties_and_constants():
    x = _autoregressive(0.0, 2, 101, seed=3)
    found = r_hat({"a": np.stack([x, 2 * x], axis=-1), "b": x})
    assert found["a"].shape == (2,)
    np.testing.assert_allclose(found["a"], found["b"], rtol=1e-12)
    assert np.isnan(r_hat(np.ones((2, 10))))
    assert np.isnan(ess(np.ones((2, 10))))
    assert np.isfinite(r_hat(np.round(x)))
    with pytest.raises(ValueError, match=r"values have shape \(2, 3\); give chains of at least 4 draws each"):
        r_hat(np.zeros((2, 3)))


def test_antithetic_chains_have_a_floor_under_their_autocorrelation_time():
    """``tau >= 1 / log10(C n)``, also where the estimate of tau is negative (Vehtari et al. 2021, as in ArviZ)."""
    x = _autoregressive(-0.99, 4, 1000, seed=5)
    np.testing.assert_allclose(ess(x), 4000 * np.log10(4000))


def test_chains_that_stand_still_at_two_places_disagree_without_limit():
    """No variance within chains and some between; distances from the median, all alike here, say nothing."""
    still = np.repeat(np.array([[0.0], [0.0], [1.0], [1.0]]), 20, axis=1)
    assert r_hat(still) == np.inf
    mixed = _autoregressive(0.0, 4, 20, seed=7)
    np.testing.assert_allclose(r_hat(np.stack([still, mixed], axis=-1)), [np.inf, r_hat(mixed)])


def test_draws_that_are_no_numbers_have_no_diagnostics():
    x = _autoregressive(0.0, 4, 100, seed=6)
    for bad in (np.nan, np.inf):
        x[1, 7] = bad
        assert all(np.isnan(diagnostic(x)) for diagnostic in (r_hat, ess, ess_tail))
