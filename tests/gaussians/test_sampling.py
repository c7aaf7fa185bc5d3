"""Draws have the mean and the covariance they claim, within the Monte-Carlo error of the test itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from gaussian_cases import BY_NAME, Problem, compiled, draw_problem, flat, flat_rows
from scipy import stats

DRAWS = 20_000
# Two-sided, for a statistic whose law is known; the seeds are fixed, so a pass stays a pass.
TAIL = 1e-4


def _within(statistic: float, law) -> bool:
    return law.ppf(TAIL) < statistic < law.isf(TAIL)


def _sampler(name: str, tree: str, num: int) -> tuple[Problem, Callable[[int], Any]]:
    """A random problem, and a function from seeds to draws."""
    problem = draw_problem(BY_NAME[name], tree, 7)
    mean, ingredients, _ = problem.arguments

    def program(mean, ingredients, key):
        return BY_NAME[name].build(mean, ingredients).sample(key, num)

    run = compiled(program, mean, ingredients, jax.random.key(0))
    return problem, lambda seed: run(mean, ingredients, jax.random.key(seed))


@pytest.mark.x64
@pytest.mark.parametrize("name", BY_NAME)
def test_mean_and_covariance(name):
    """Whitened by the true covariance, N |mean|^2 is chi-square with D degrees of freedom. The entries of the second
    moment are uncorrelated, with variances 1/N off the diagonal and 2/N on it: the sum of their standardised squares
    is a chi-square too, up to order 1/N."""
    problem, sample = _sampler(name, "tuple", DRAWS)
    draws = flat_rows(sample(1))
    white = np.linalg.solve(np.linalg.cholesky(problem.covariance), (draws - flat(problem.mean)).T)
    size = len(white)
    assert _within(DRAWS * np.sum(white.mean(axis=1) ** 2), stats.chi2(size))
    moment = white @ white.T / DRAWS - np.eye(size)
    rows, columns = np.triu_indices(size)
    standardised = moment[rows, columns] ** 2 * DRAWS / np.where(rows == columns, 2, 1)
    assert _within(np.sum(standardised), stats.chi2(len(rows)))
    # Not only the second moment: fourth powers of a standard normal have mean 3 and variance 96.
    assert abs(np.mean(white**4) - 3) < 5 * np.sqrt(96 / white.size)


@pytest.mark.parametrize("name", ["diagonal", "low rank", "dense", "blocks"])
def test_shapes_dtypes_and_keys(name):
    problem, sample = _sampler(name, "nnx", 3)
    first, again, other = sample(1), sample(1), sample(2)
    for draw, mean in zip(jax.tree.leaves(first), jax.tree.leaves(problem.mean), strict=True):
        assert draw.shape == (3, *mean.shape)
        assert draw.dtype == np.float32
    assert jax.tree.structure(first) == jax.tree.structure(problem.mean)
    np.testing.assert_array_equal(flat_rows(first), flat_rows(again))
    assert not np.any(flat_rows(first) == flat_rows(other))
