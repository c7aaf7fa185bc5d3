"""The last layer in its dual form against the same in dense primal algebra, true refits and the package's evidence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import bayestl as btl
from bayestl import transferability
from bayestl.transferability import _softmax_process as process
from bayestl.transferability._last_layer import one_of_each

RNG = np.random.default_rng(1)
FEATURES = RNG.normal(size=(9, 3))
PLACES = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0])
TARGETS = np.eye(3)[PLACES]
OFFSET = 0.3 * RNG.normal(size=(9, 3))
VARIANCE = 2.0
KERNEL = VARIANCE * FEATURES @ FEATURES.T


def _hessian(probs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of the negative log joint in the weights (D, C), flat, over some examples."""
    total = np.eye(9) / VARIANCE
    for i in rows:
        jacobian = np.kron(FEATURES[i], np.eye(3))  # (C, D C)
        jacobian = np.concatenate([np.eye(3) * f for f in FEATURES[i]], axis=1)
        total += jacobian.T @ (np.diag(probs[i]) - np.outer(probs[i], probs[i])) @ jacobian
    return total


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _gradient(probs: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return (FEATURES[rows].T @ (probs - TARGETS)[rows] + weights / VARIANCE).ravel()


def _refit(rows: np.ndarray, start: np.ndarray | None = None, steps: int = 50) -> np.ndarray:
    """Newton's method in the primal, (D, C)."""
    weights = np.zeros((3, 3)) if start is None else start
    for _ in range(steps):
        probs = _softmax(OFFSET + FEATURES @ weights)
        step = np.linalg.solve(_hessian(probs, rows), _gradient(probs, weights, rows)).reshape(3, 3)
        weights = weights - step
    return weights


ALL = np.arange(9)
MODE = _refit(ALL)
FITTED = process.mode(KERNEL, TARGETS, OFFSET)


def test_the_mode_is_that_of_the_weights():
    np.testing.assert_allclose(FITTED.logits, OFFSET + FEATURES @ MODE, atol=1e-8)


def test_the_covariance_is_that_of_the_weights():
    members = np.array([1, 4, 8])
    jacobian = np.concatenate([np.concatenate([np.eye(3) * f for f in FEATURES[i]], axis=1) for i in members])
    dense = np.linalg.inv(_hessian(_softmax(OFFSET + FEATURES @ MODE), ALL))
    expected = jacobian @ dense @ jacobian.T
    np.testing.assert_allclose(process.covariance(KERNEL, FITTED.curvature, members), expected, atol=1e-8)


@pytest.mark.parametrize("members", [[0], [2, 3, 4], [0, 1, 2, 3, 4, 5, 6]], ids=["one", "three", "most"])
def test_leaving_out_is_one_newton_step_without_them(members: list[int]):
    rest = np.setdiff1d(ALL, members)
    stepped = _refit(rest, MODE, steps=1)
    expected = OFFSET[members] + FEATURES[members] @ stepped
    np.testing.assert_allclose(process.left_out(KERNEL, FITTED, TARGETS, np.array(members)), expected, atol=1e-8)


def test_leaving_out_is_near_true_refits():
    """The error of one Newton step is of second order in what was left out: a twentieth of the change here."""
    for i in range(9):
        refitted = FEATURES[i] @ _refit(np.setdiff1d(ALL, [i]))
        change = np.abs(refitted - FEATURES[i] @ MODE).max()
        stepped = process.left_out(KERNEL, FITTED, TARGETS, np.array([i]))[0] - OFFSET[i]
        assert np.abs(stepped - refitted).max() < 0.35 * change


@pytest.mark.x64
def test_the_evidence_is_that_of_the_package():
    net = btl.nets.from_function(lambda params, x: x[:, 3:] + x[:, :3] @ params["w"], {"w": jnp.zeros((3, 3))})
    prior = btl.gaussians.isotropic(net.params, scale=np.sqrt(VARIANCE))
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=9)
    batch = btl.Batch(jnp.asarray(np.concatenate([FEATURES, OFFSET], axis=1)), jnp.asarray(PLACES))
    expected = btl.infer.log_evidence(jax.random.key(0), joint, {"w": jnp.asarray(MODE)}, batch)
    assert FITTED.log_evidence == pytest.approx(float(expected), abs=1e-8)


def test_groups_hold_one_example_of_every_class():
    assert [group.tolist() for group in one_of_each(PLACES)] == [[0, 1, 2], [3, 4, 5], [6, 7], [8]]


def test_one_example_per_class_is_predicted_by_the_prior_mean():
    fitted = transferability.last_layer(FEATURES[:3], PLACES[:3])
    np.testing.assert_allclose(fitted.log_predictive, np.log(1 / 3), atol=1e-12)
    outputs = OFFSET[:3]
    own = transferability.last_layer(FEATURES[:3], PLACES[:3], outputs=outputs)
    np.testing.assert_allclose(own.log_predictive, np.log(_softmax(outputs))[np.arange(3), PLACES[:3]], atol=1e-12)


def test_average_over_variances():
    one = [transferability.last_layer(FEATURES, PLACES, variances=[v]) for v in (0.1, 3.0)]
    both = transferability.last_layer(FEATURES, PLACES, variances=[3.0, 0.1])
    totals = np.array([each.log_predictive.sum() for each in one])
    weights = np.exp(totals - totals.max()) / np.exp(totals - totals.max()).sum()
    np.testing.assert_allclose(both.weights[::-1], weights, rtol=1e-6)
    expected = np.log(sum(w * np.exp(each.log_predictive) for w, each in zip(weights, one, strict=True)))
    np.testing.assert_allclose(both.log_predictive, expected, atol=1e-8)
    assert both.evidence == pytest.approx(max(each.evidence for each in one))


def test_predictions_elsewhere_are_those_of_the_weights():
    """On features and a constant, each of half of the prior variance of the outputs, in the primal."""
    fitted = transferability.last_layer(FEATURES, PLACES, outputs=OFFSET, variances=[VARIANCE])
    mean = FEATURES.mean(axis=0)
    scale = np.sqrt(0.5 / np.mean(np.sum((FEATURES - mean) ** 2, axis=1)))

    def design(features: np.ndarray) -> np.ndarray:
        return np.concatenate([scale * (features - mean), np.full((len(features), 1), np.sqrt(0.5))], axis=1)

    def negative(flat: np.ndarray) -> float:
        logits = OFFSET + design(FEATURES) @ flat.reshape(4, 3)
        return -np.sum(TARGETS * np.log(_softmax(logits))) + flat @ flat / (2 * VARIANCE)

    weights = scipy.optimize.minimize(negative, np.zeros(12), tol=1e-12).x.reshape(4, 3)
    others, outputs = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    expected = np.log(_softmax(outputs + design(others) @ weights))
    np.testing.assert_allclose(fitted.log_probs(others, outputs), expected, atol=1e-5)  # of finite differences
    both = transferability.last_layer(FEATURES, PLACES)
    np.testing.assert_allclose(np.exp(both.log_probs(others)).sum(axis=1), 1.0, atol=1e-12)
    with pytest.raises(ValueError, match="outputs go with"):
        fitted.log_probs(others)
    with pytest.raises(ValueError, match="features has shape"):
        both.log_probs(others[:, :2])
    with pytest.raises(TypeError, match="for numbers"):
        transferability.last_layer(FEATURES, RNG.normal(size=9)).log_probs(others)


def test_numbers_are_left_out_exactly():
    """Against the conditional of a dense normal distribution, example by example, and its log density."""
    targets = np.stack([FEATURES @ [1.0, -2, 0.5] + RNG.normal(size=9), RNG.normal(size=9)], axis=1)
    fitted = transferability.last_layer(FEATURES, targets, variances=[4.0])
    centred = FEATURES - FEATURES.mean(axis=0)
    gram = centred @ centred.T
    kernel = 0.5 * gram / np.mean(np.diag(gram)) + 0.5
    expected, evidence = np.zeros(9), 0.0
    for column in targets.T:
        y = (column - column.mean()) / column.std()
        shape = 4.0 * kernel + np.eye(9)
        noise = y @ np.linalg.solve(shape, y) / 9
        evidence += scipy.stats.multivariate_normal.logpdf(y, cov=noise * shape) - 9 * np.log(column.std())
        for i in range(9):
            rest = np.setdiff1d(ALL, [i])
            inverse = np.linalg.inv(shape[np.ix_(rest, rest)])
            mean = shape[i, rest] @ inverse @ y[rest]
            spread = noise * (shape[i, i] - shape[i, rest] @ inverse @ shape[rest, i])
            expected[i] += scipy.stats.norm.logpdf(y[i], mean, np.sqrt(spread)) - np.log(column.std())
    np.testing.assert_allclose(fitted.log_predictive, expected, atol=1e-10)
    assert fitted.evidence == pytest.approx(evidence / 9, abs=1e-10)


def test_separable_classes_and_wide_priors_are_finite():
    features = np.concatenate([np.full((6, 2), -1.0), np.full((6, 2), 1.0)])
    fitted = transferability.last_layer(features, np.repeat([0, 1], 6), variances=[1e-6, 1e8])
    assert np.all(np.isfinite(fitted.curve))
    assert np.all(np.isfinite(fitted.log_evidence))
    assert fitted.held_out > -0.01


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"targets": np.ones(9)}, ValueError, "column 0 of targets is the same number"),
        ({"targets": PLACES, "outputs": np.zeros((9, 2))}, ValueError, "outputs has shape.*\\(9, 3\\)"),
        ({"targets": RNG.normal(size=9), "outputs": np.zeros((9, 3))}, TypeError, "subtract"),
        ({"targets": PLACES, "variances": [0.0]}, ValueError, "positive numbers"),
        ({"targets": np.zeros(9, int)}, ValueError, "one class alone"),
    ],
)
def test_bad_input(arguments: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        transferability.last_layer(FEATURES, **arguments)
