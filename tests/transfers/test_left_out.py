"""What stands in for held-out data, against refits and their mixture in numpy."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

import bayestl as btl
from bayestl.transfers._left_out import left_out_predictions

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(12, 3))
BATCH_INPUTS = jnp.asarray(INPUTS, jnp.float32)
LOG_SCALES = np.array([-2.0, 0.0])


def logistic(rows: np.ndarray, labels: np.ndarray, scale: float) -> np.ndarray:
    """The mode of softmax regression under N(0, scale^2 I), by scipy."""

    def loss(flat: np.ndarray) -> float:
        logits = INPUTS[rows] @ flat.reshape(3, 3)
        log_p = scipy.special.log_softmax(logits, axis=1)
        return -log_p[np.arange(len(logits)), labels[rows]].sum() + 0.5 * np.sum(flat**2) / scale**2

    return scipy.optimize.minimize(loss, np.zeros(9), tol=1e-10).x.reshape(3, 3)


@pytest.mark.parametrize("keep", [2, 1])
def test_classes_are_a_mixture_of_refits(keep: int):
    labels = np.tile(np.arange(3), 4)
    groups = btl.tune.groups_by_class(labels)
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros((3, 3))})
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=12)
    batch = btl.Batch(BATCH_INPUTS, jnp.asarray(labels))
    family = btl.tune.isotropic_family("zero", net.params)
    path = btl.tune.path(KEY, joint, [family], batch, LOG_SCALES, btl.tune.leave_out(groups), steps=5)
    weights = RNG.dirichlet(np.ones(2), size=12)
    made = left_out_predictions(joint, path, weights, keep, batch)
    assert made is not None
    expected = np.zeros((12, 3))
    for group in range(groups.max() + 1):
        left = groups == group
        for number, log_scale in enumerate(LOG_SCALES):
            mode = logistic(~left, labels, np.exp(0.5 * log_scale))
            share = weights[left, number] if keep == 2 else (weights[left].argmax(1) == number)
            expected[left] += np.asarray(share)[:, None] * scipy.special.softmax(INPUTS[left] @ mode, axis=1)
    np.testing.assert_allclose(made.predictive.probs, expected, atol=1e-4)
    assert made.rows.tolist() == list(range(12))
    assert made.targets.tolist() == labels.tolist()


def test_real_targets_have_the_moments_of_a_mixture_of_refits():
    targets, noise = INPUTS @ [1.0, -1.0, 0.5] + 0.3 * RNG.normal(size=12), 0.4
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(3)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(noise), None, num_data=12)
    batch = btl.Batch(BATCH_INPUTS, jnp.asarray(targets, jnp.float32))
    family = btl.tune.isotropic_family("zero", net.params)
    path = btl.tune.path(KEY, joint, [family], batch, LOG_SCALES, btl.tune.linear_leave_one_out(), steps=5)
    weights = RNG.dirichlet(np.ones(2), size=12)
    made = left_out_predictions(joint, path, weights, 2, batch)
    assert made is not None
    for i in range(12):
        x, y = np.delete(INPUTS, i, 0), np.delete(targets, i)
        means, variances = np.zeros(2), np.zeros(2)
        for number, log_scale in enumerate(LOG_SCALES):
            covariance = np.linalg.inv(x.T @ x / noise**2 + np.eye(3) / np.exp(log_scale))
            means[number] = INPUTS[i] @ covariance @ x.T @ y / noise**2
            variances[number] = INPUTS[i] @ covariance @ INPUTS[i]
        mean = weights[i] @ means
        assert made.predictive.mean[i] == pytest.approx(mean, abs=2e-4)
        spread = weights[i] @ (variances + (means - mean) ** 2)
        assert made.predictive.function_variance()[i] == pytest.approx(spread, rel=2e-3)
        assert made.predictive.expected_variance()[i] == pytest.approx(noise**2, rel=1e-5)


@pytest.fixture(scope="module")
def transferred() -> btl.TransferResult:
    labels = np.tile(np.arange(3), 4)
    inputs = jnp.asarray(np.eye(3, 8)[labels] + RNG.normal(size=(12, 8)), jnp.float32)
    nets = [btl.nets.mlp(jax.random.key(seed), (8, 4, 3)) for seed in (0, 1)]
    train = btl.Batch(inputs, jnp.asarray(labels))
    return btl.transfer(KEY, nets[0], nets[1], train, btl.likelihoods.categorical(), num_scales=4, steps=10, keep=3)


def test_a_transfer_scores_them_as_it_says(transferred: Any):
    left = transferred.left_out
    assert float(btl.metrics.nll(left.predictive, left.targets)) == pytest.approx(-transferred.held_out, abs=1e-5)


@pytest.mark.parametrize("name", ["temperature", "vector", "dirichlet", "isotonic", "histogram"])
def test_every_calibrator_takes_predictives_as_it_takes_their_probabilities(name: str, transferred: Any):
    left, fit = transferred.left_out, getattr(btl.predict.calibrate, name)
    if name == "histogram":
        fit = partial(fit, num_bins=4)
    probs = np.asarray(left.predictive.probs, np.float64)
    softer, predictive = fit(left.predictive, left.targets), transferred.predict(jnp.ones((2, 8)))
    takes_logits = name in ("temperature", "vector")
    other = fit(np.log(probs) if takes_logits else probs, left.targets)
    new = np.asarray(predictive.probs, np.float64)
    np.testing.assert_allclose(softer(predictive), other(np.log(new) if takes_logits else new), atol=1e-6)
