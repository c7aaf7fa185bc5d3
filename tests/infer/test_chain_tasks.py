"""A chain of linear-normal tasks is the joint posterior; forgetting and compression are what they say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl

RNG = np.random.default_rng(0)
SIZE, NUM, NOISE, SCALE = 3, 4, 0.7, 1.5
INPUTS = [RNG.normal(size=(NUM, SIZE)) for _ in range(3)]
TARGETS = [x @ RNG.normal(size=SIZE) for x in INPUTS]


# Gradient descent at a rate below 2 / (curvature of the loss, which is per example); the slowest direction, that of the
# smallest eigenvalue, has converged to 1e-12 after 28 / (rate * smallest) steps.
_LARGEST = np.linalg.eigvalsh(sum(x.T @ x for x in INPUTS) / NOISE**2 + np.eye(SIZE) / SCALE**2)[-1] / NUM


def _method(joint: btl.LogJoint) -> btl.Inference:
    return btl.infer.map_estimate(joint, optax.sgd(1.0 / _LARGEST))


def _chain(**options):
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(SIZE)})
    prior = btl.gaussians.isotropic(net.params, scale=SCALE)
    tasks = [btl.data.arrays(jnp.asarray(x), jnp.asarray(y)) for x, y in zip(INPUTS, TARGETS, strict=True)]
    return btl.infer.chain_tasks(
        jax.random.key(0),
        net,
        btl.likelihoods.normal(NOISE),
        prior,
        tasks,
        _method,
        steps=3000,
        batch_size=NUM,
        **options,
    )


def _closed_form(weights: list[float], prior_weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all data, each task counted ``weights`` times."""
    precision = prior_weight * np.eye(SIZE) / SCALE**2
    moment = np.zeros(SIZE)
    for w, x, y in zip(weights, INPUTS, TARGETS, strict=True):
        precision += w * x.T @ x / NOISE**2
        moment += w * x.T @ y / NOISE**2
    return np.linalg.solve(precision, moment), np.linalg.inv(precision)


def _check(posterior, mean: np.ndarray, covariance: np.ndarray):
    np.testing.assert_allclose(posterior.mean["w"], mean, atol=1e-8)
    rows = [posterior.covariance_mv({"w": jnp.asarray(row)})["w"] for row in np.eye(SIZE)]
    np.testing.assert_allclose(np.stack(rows), covariance, atol=1e-8)


@pytest.mark.x64
def test_the_chain_is_the_joint_posterior():
    links = _chain(curvature=btl.curvature.dense())
    assert len(links) == 3
    for number, link in enumerate(links):
        weights = [1.0] * (number + 1) + [0.0] * (2 - number)
        _check(link.posterior, *_closed_form(weights, 1.0))
    assert links[1].prior is links[0].next_prior


@pytest.mark.x64
def test_forgetting_counts_old_tasks_less():
    links = _chain(curvature=btl.curvature.dense(), forgetting=0.5)
    _check(links[-1].posterior, *_closed_form([0.25, 0.5, 1.0], 0.25))


@pytest.mark.slow
@pytest.mark.x64
def test_compression_keeps_the_rank():
    """Of rank D and more nothing is lost; of rank 2 the columns are 2 after every task."""
    links = _chain(curvature=btl.curvature.low_rank(SIZE), rank=SIZE)
    _check(links[-1].posterior, *_closed_form([1.0, 1.0, 1.0], 1.0))
    shorter = _chain(curvature=btl.curvature.low_rank(2), rank=2)
    assert [link.next_prior.rank for link in shorter] == [2, 2, 2]


def test_bad_input():
    with pytest.raises(ValueError, match="forgetting is 0"):
        _chain(forgetting=0)
    with pytest.raises(ValueError, match="rank is 0"):
        _chain(rank=0)
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
    arguments = (jax.random.key(0), net, btl.likelihoods.normal(1.0))
    task = btl.data.arrays(jnp.ones((2, 2)), jnp.zeros(2))
    with pytest.raises(TypeError, match="prior is a NoneType"):
        btl.infer.chain_tasks(*arguments, None, [task], lambda joint: None, steps=1)
    with pytest.raises(ValueError, match="tasks is empty"):
        btl.infer.chain_tasks(*arguments, None, [], lambda joint: None, steps=1)
