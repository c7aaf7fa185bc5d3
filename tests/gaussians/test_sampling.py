"""Draws have the mean and the covariance they claim, within the Monte-Carlo error of the test itself."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from gaussian_cases import BY_NAME, draw_problem, flat, flat_rows
from scipy import stats

DRAWS = 20_000
# Two-sided, for a statistic whose law is known; the seeds are fixed, so a pass stays a pass.
TAIL = 1e-4


def _within(statistic: float, law) -> bool:
    return law.ppf(TAIL) < statistic < law.isf(TAIL)


_sample = jax.jit(lambda g, key, num: g.sample(key, num), static_argnums=2)


@pytest.mark.x64
@pytest.mark.parametrize("name", BY_NAME)
def test_mean_and_covariance(name):
    """Whitened by the true covariance, N |mean|^2 is chi-square with D degrees of freedom, and the entries of the second
    moment are independent up to higher order with variances 1/N off the diagonal and 2/N on it: again a chi-square."""
    problem = draw_problem(BY_NAME[name], "tuple", 7)
    g = BY_NAME[name].build(problem.mean, problem.ingredients)
    draws = flat_rows(_sample(g, jax.random.key(1), DRAWS))
    white = np.linalg.solve(np.linalg.cholesky(problem.covariance), (draws - flat(problem.mean)).T)
    size = len(white)
    assert _within(DRAWS * np.sum(white.mean(axis=1) ** 2), stats.chi2(size))
    moment = white @ white.T / DRAWS - np.eye(size)
    rows, columns = np.triu_indices(size)
    standardised = moment[rows, columns] ** 2 * DRAWS / np.where(rows == columns, 2, 1)
    assert _within(np.sum(standardised), stats.chi2(len(rows)))
    # Not only the second moment: fourth powers of a standard normal have mean 3 and variance 96.
    assert abs(np.mean(white**4) - 3) < 5 * np.sqrt(96 / white.size)


@pytest.mark.parametrize("name", BY_NAME)
def test_shapes_dtypes_and_keys(name):
    problem = draw_problem(BY_NAME[name], "dict", 8)
    g = BY_NAME[name].build(problem.mean, problem.ingredients)
    first, again, other = (_sample(g, jax.random.key(seed), 3) for seed in (1, 1, 2))
    for draw, mean in zip(jax.tree.leaves(first), jax.tree.leaves(g.mean), strict=True):
        assert draw.shape == (3, *mean.shape)
        assert draw.dtype == mean.dtype == np.float32
    assert jax.tree.structure(first) == jax.tree.structure(g.mean)
    np.testing.assert_array_equal(flat_rows(first), flat_rows(again))
    assert not np.any(flat_rows(first) == flat_rows(other))
