"""What every likelihood says of itself, against automatic differentiation, finite differences and quadrature."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from likelihood_cases import CASES, NOT_CONVEX, Case

from bayestl import likelihoods
from bayestl.predict import GaussianOutputs, Predictive
from bayestl.predict._links import default_link

NUM = 4
KEY = jax.random.key(1)


def _prepared(name: str) -> tuple[Case, Any, Any]:
    case = CASES[name]
    return case, case.make(), case.outputs(np.random.default_rng(0), NUM)


def _targets(likelihood: Any, outputs: Any) -> jax.Array:
    return likelihoods.predictive_distribution(likelihood, outputs).sample(KEY)


def _negative(likelihood: Any, outputs: Any, targets: Any) -> Any:
    """One example's outputs, flat -> its ``-log p``, for every example."""

    def one(flat: jax.Array, example: Any, target: jax.Array) -> jax.Array:
        unflat = ravel_pytree(example)[1]
        return -likelihood(jax.tree.map(lambda x: x[None], unflat(flat))).log_prob(target[None])[0]

    flat = jax.vmap(lambda example: ravel_pytree(example)[0])(outputs)
    return flat, lambda flat: jax.vmap(one)(flat, outputs, targets)


def _hessians(likelihood: Any, outputs: Any, targets: Any) -> np.ndarray:
    flat, negative = _negative(likelihood, outputs, targets)
    size = flat.shape[1]
    total = jax.jit(jax.hessian(lambda flat: jnp.sum(negative(flat))))(flat)  # (B, F, B, F), block diagonal
    return np.stack([np.asarray(total)[i, :, i, :] for i in range(NUM)]).reshape(NUM, size, size)


def _fisher(likelihood: Any, outputs: Any, targets: Any, widths: Any) -> np.ndarray:
    """The mean of the squared score over all targets, (B, F, F)."""

    def scores(target: Any) -> Any:
        flat, negative = _negative(likelihood, outputs, target)
        return jax.grad(lambda flat: jnp.sum(negative(flat)))(flat), likelihood(outputs).log_prob(target)

    gradient, log_prob = jax.jit(jax.vmap(scores))(targets)
    weight = jnp.exp(log_prob) * widths
    np.testing.assert_allclose(weight.sum(0), 1, rtol=1e-4)  # the grid holds the density
    return np.asarray(jnp.einsum("tn,tna,tnb->nab", weight, gradient, gradient))


@pytest.mark.x64
@pytest.mark.parametrize("name", CASES)
def test_hessian_root(name):
    case, likelihood, outputs = _prepared(name)
    targets = _targets(likelihood, outputs)
    noise = likelihoods.gaussian_noise(likelihood, outputs)
    if case.support is not None:
        expected = _fisher(likelihood, outputs, *case.support(outputs))
    elif noise is None:
        # Densities of exponential families in a linear map of the outputs: no target is in the Hessian.
        expected = _hessians(likelihood, outputs, targets)
    else:
        # The Hessian is quadratic in the residual z, and the mean over z = -1, 1 is that over a normal z.
        ends = [noise.location + sign * jnp.sqrt(noise.variance) for sign in (-1, 1)]
        expected = 0.5 * sum(_hessians(likelihood, outputs, end) for end in ends)
    columns = likelihoods.hessian_root(likelihood, outputs, targets)
    flat = np.concatenate([np.asarray(c).reshape(len(c), NUM, -1) for c in jax.tree.leaves(columns)], axis=2)
    # Where the density is convex nothing is cut off.
    values, vectors = np.linalg.eigh(expected)
    positive = np.einsum("nij,nj,nkj->nik", vectors, np.maximum(values, 0), vectors)
    # Where the expectation is a sum over a grid, it is as exact as that.
    rtol = 1e-9 if case.support is None else 1e-4
    np.testing.assert_allclose(np.einsum("kna,knb->nab", flat, flat), positive, rtol=rtol, atol=1e-2 * rtol)
    share = np.maximum(-values, 0).sum() / np.abs(values).sum()
    np.testing.assert_allclose(likelihoods.clipped_share(likelihood, outputs, targets), share, rtol=1e-9, atol=1e-12)
    assert name in NOT_CONVEX or share < 1e-12


@pytest.mark.x64
@pytest.mark.parametrize("name", CASES)
def test_gradient(name):
    _, likelihood, outputs = _prepared(name)
    flat, negative = _negative(likelihood, outputs, _targets(likelihood, outputs))
    negative = jax.jit(negative)
    gradient = jax.jit(jax.grad(lambda flat: jnp.sum(negative(flat))))(flat)
    step = 1e-6
    for j in range(flat.shape[1]):
        apart = negative(flat.at[:, j].add(step)) - negative(flat.at[:, j].add(-step))
        # Central differences: step^2 times a third derivative, and rounding of 1e-16 / step.
        np.testing.assert_allclose(gradient[:, j], apart / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.noise is not None])
def test_moments_of_random_targets(name):
    case, likelihood, _ = _prepared(name)
    num, power = 20_000, 4.0
    shape = (num, *np.shape(case.noise))
    noise = np.asarray(likelihoods.target_noise(likelihood, KEY, jnp.ones(shape), power))
    scale = case.noise / np.sqrt(power)
    # Five standard errors of a mean, and of a variance of normals.
    assert np.all(np.abs(noise.mean(0)) < 5 * scale / np.sqrt(num))
    assert np.all(np.abs(noise.var(0) / scale**2 - 1) < 5 * np.sqrt(2 / num))
    assert not np.any(likelihoods.target_noise(likelihood, KEY, jnp.ones(shape), 0.0))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.noise is None])
def test_no_random_targets(name):
    _, likelihood, outputs = _prepared(name)
    with pytest.raises(TypeError, match=r"noise on the targets needs a likelihood with additive noise of a given size"):
        likelihoods.target_noise(likelihood, KEY, jax.tree.leaves(outputs)[0], 1.0)


@pytest.mark.x64
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.link_error is not None])
def test_default_link_against_quadrature(name):
    case, likelihood, mean = _prepared(name)
    variance = np.linspace(0.1, 1.5, NUM)
    targets = _targets(likelihood, mean)
    covariance = jnp.asarray(variance)[None, :, None, None]
    given = default_link(GaussianOutputs(mean[None], covariance, likelihood, jnp.zeros(1)))
    # A grid over eight standard deviations, far finer than the densities are narrow.
    z = np.linspace(-8, 8, 4001)
    weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    nodes = jnp.asarray(np.asarray(mean) + z[:, None] * np.sqrt(variance))
    densities = np.exp(jax.vmap(lambda outputs: likelihood(outputs).log_prob(targets))(nodes))
    np.testing.assert_allclose(np.exp(given.log_prob(targets)), weights @ densities, rtol=0, atol=case.link_error)


def test_a_link_is_needed_for_several_outputs():
    _, likelihood, mean = _prepared("several labels")
    outputs = GaussianOutputs(mean[None], jnp.broadcast_to(jnp.eye(3), (1, NUM, 3, 3)), likelihood, jnp.zeros(1))
    with pytest.raises(TypeError, match=r"link is needed for a FromFunction likelihood of 3 outputs.*predict.sampled"):
        default_link(outputs)


@pytest.mark.parametrize("name", CASES)
def test_a_predictive_scores_targets(name):
    _, likelihood, outputs = _prepared(name)
    targets = _targets(likelihood, outputs)
    given = Predictive(jax.tree.map(lambda x: x[None], outputs), likelihood, jnp.zeros(1))
    expected = likelihoods.predictive_distribution(likelihood, outputs).log_prob(targets)
    np.testing.assert_allclose(given.log_prob(targets), expected, rtol=1e-6)
