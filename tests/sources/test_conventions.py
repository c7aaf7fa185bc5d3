"""Published conventions: the numbers that each of them gives for the same statistics."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import bayestl as btl
from bayestl.sources import conventions

C, EPS, K = 10.0, 0.1, 3


def test_traces_of_one_toy():
    # tr diag(v), tr Dev^T Dev and D of a toy for which the traces are known: 334, 13 and 67.
    variance, deviations, size, k = 0.595, 3.2205, 60, 5

    def trace(convention):
        found = convention(C, EPS, k)
        return found.variance * variance + found.floor * size + found.deviations**2 * deviations

    assert round(trace(conventions.shwartz_ziv_2022)) == 334
    assert round(trace(conventions.harvey_2024)) == 13
    assert round(trace(conventions.harvey_2025)) == 67
    assert trace(conventions.swag) == trace(conventions.harvey_2024)


def _swag(variance, deviations):
    return C / 2 * (np.diag(variance) + deviations.T @ deviations / (K - 1)) + EPS * np.eye(len(variance))


def _harvey_2025(variance, deviations):
    return C * (0.5 * np.diag(variance) + EPS * np.eye(len(variance)) + 0.5 * deviations.T @ deviations / (K - 1))


def _shwartz_ziv_2022(variance, deviations):
    return C * np.diag(variance) + EPS * np.eye(len(variance)) + (C * deviations).T @ (C * deviations)


@pytest.mark.x64
@pytest.mark.parametrize(
    ("convention", "truth"),
    [
        (conventions.swag, _swag),
        (conventions.harvey_2024, _swag),
        (conventions.harvey_2025, _harvey_2025),
        (conventions.shwartz_ziv_2022, _shwartz_ziv_2022),
    ],
)
def test_covariance_under_a_convention(convention, truth):
    iterates = np.random.default_rng(0).normal(size=(11, 7))
    tree = {"a": iterates[:, :4].reshape(-1, 2, 2), "b": iterates[:, 4:]}
    prior = btl.sources.from_iterates(tree, rank=K, eps=EPS, covariance_scale=C, convention=convention)
    units = np.eye(7)
    columns = jax.vmap(prior.covariance_mv)({"a": units[:, :4].reshape(-1, 2, 2), "b": units[:, 4:]})
    found = np.hstack([x.reshape(7, -1) for x in (columns["a"], columns["b"])])
    deviations = iterates[-K:] - iterates.mean(axis=0)
    np.testing.assert_allclose(found, truth(iterates.var(axis=0), deviations), rtol=1e-10, atol=1e-10)
