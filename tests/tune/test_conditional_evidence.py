"""The conditional evidence against the conditional density of dense Gaussians, in numpy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
NUM, SIZE, NOISE = 9, 4, 0.5
INPUTS, TARGETS = RNG.normal(size=(NUM, SIZE)), RNG.normal(size=NUM)
MEAN, ROOT = RNG.normal(size=SIZE), RNG.normal(size=(SIZE, SIZE))
COVARIANCE = ROOT @ ROOT.T + 0.1 * np.eye(SIZE)
GROUPS = np.array([0, -1, 1, -1, 0, 1, 1, -1, 0])
NET = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(SIZE)})


def mode(counts: np.ndarray) -> np.ndarray:
    """Of the examples, each as often as it counts."""
    precision = INPUTS.T @ (counts[:, None] * INPUTS) / NOISE**2 + np.linalg.inv(COVARIANCE)
    return MEAN + np.linalg.solve(precision, INPUTS.T @ (counts * (TARGETS - INPUTS @ MEAN)) / NOISE**2)


def log_conditional(counts: np.ndarray, is_second: Any) -> float:
    """Of the targets of the second part given those of the first, by the conditional of their joint Gaussian."""
    second, first = (np.repeat(np.arange(NUM), counts * part) for part in (is_second, ~is_second))
    prior, residual = INPUTS @ COVARIANCE @ INPUTS.T, TARGETS - INPUTS @ MEAN
    observed = prior[np.ix_(first, first)] + NOISE**2 * np.eye(len(first))
    gain = np.linalg.solve(observed, prior[np.ix_(first, second)]).T
    covariance = prior[np.ix_(second, second)] + NOISE**2 * np.eye(len(second)) - gain @ prior[np.ix_(first, second)]
    r = residual[second] - gain @ residual[first]
    log_det = np.linalg.slogdet(covariance)[1]
    return -0.5 * (r @ np.linalg.solve(covariance, r) + log_det + len(r) * np.log(2 * np.pi))


def scores(groups: np.ndarray, counts: np.ndarray, weights: Any) -> np.ndarray:
    joint = btl.LogJoint(
        NET,
        btl.likelihoods.normal(NOISE),
        btl.gaussians.dense({"w": jnp.asarray(MEAN)}, jnp.asarray(COVARIANCE)),
        num_data=counts.sum(),
    )
    criterion = btl.tune.conditional_evidence(groups)
    np.testing.assert_array_equal(criterion.groups, groups)
    firsts = [np.where(groups == group, 0, counts) for group in range(groups.max() + 1)]
    # The path makes no fit of no examples.
    parts = np.array([mode(first) for first in firsts if first.any()]).reshape(-1, SIZE)
    fitted = btl.tune.Fitted({"w": jnp.asarray(mode(counts))}, {"w": jnp.asarray(parts)})
    return criterion(KEY, joint, fitted, btl.Batch(jnp.asarray(INPUTS), jnp.asarray(TARGETS), weights))


@pytest.mark.x64
def test_is_the_exact_conditional_marginal_likelihood_of_a_linear_model():
    once, often = np.ones(NUM, int), np.array([1, 2, 1, 3, 2, 1, 1, 1, 1])
    for counts, weights in ((once, None), (often, often.astype(float))):
        expected = [log_conditional(counts, group == GROUPS) for group in (0, 1)]
        np.testing.assert_allclose(scores(GROUPS, counts, weights), expected, rtol=1e-8)
    # With nothing in the first part it is the evidence.
    evidence = log_conditional(once, np.ones(NUM, bool))
    np.testing.assert_allclose(scores(np.zeros(NUM, int), once, None), [evidence], rtol=1e-8)


@pytest.mark.parametrize("groups", [[-1, -1], [0, 2], [0.5, 0.5], 0.8])
def test_other_groups_are_refused(groups: object):
    with pytest.raises(ValueError, match="one whole number per example"):
        btl.tune.conditional_evidence(groups)
