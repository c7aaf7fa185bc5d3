"""Published scores against their formulas, written out densely, and against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from sklearn.covariance import LedoitWolf

from bayestl import transferability

RNG = np.random.default_rng(0)
WIDE = RNG.normal(size=(8, 20)) @ RNG.normal(size=(20, 20))
TALL = RNG.normal(size=(40, 5)) + np.repeat(np.arange(4), 10)[:, None] * [1.0, 0.3, 0, 0, 0]
SHORT_LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
LONG_LABELS = np.repeat([0, 1, 2, 3], 10)
CASES = [(WIDE, SHORT_LABELS), (TALL, LONG_LABELS)]


# ---------------------------------------------------------------- LEEP and NCE


def test_leep_and_nce_by_loops():
    logits = RNG.normal(size=(30, 4)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = RNG.integers(3, size=30)
    given = np.zeros((3, 4))
    for z in range(4):
        for y in range(3):
            given[y, z] = probs[labels == y, z].sum() / probs[:, z].sum()
    expected = np.mean([np.log(sum(given[y, z] * p[z] for z in range(4))) for y, p in zip(labels, probs, strict=True)])
    assert transferability.leep(probs, labels) == pytest.approx(expected, abs=1e-13)

    said = probs.argmax(axis=1)
    shares = [np.mean(labels[said == z] == y) for y, z in zip(labels, said, strict=True)]
    assert transferability.nce(probs, labels) == pytest.approx(np.mean(np.log(shares)), abs=1e-13)


def test_classes_without_mass_and_other_names_of_labels():
    """Worked by hand: the source never says its third class. Of its first, 2 of 3 examples have label 7."""
    hard = np.eye(3)[[0, 0, 0, 1]]
    labels = np.array([7, 7, -2, -2])
    expected = (2 * np.log(2 / 3) + np.log(1 / 3) + np.log(1.0)) / 4
    assert transferability.nce(hard, labels) == pytest.approx(expected, abs=1e-14)
    assert transferability.leep(hard, labels) == pytest.approx(expected, abs=1e-14)  # the same for hard predictions


def test_ties_are_shared():
    """Two tied classes, an example of each label: all mass is half and half, whichever comes first in the array."""
    assert transferability.nce([[0.5, 0.5], [0.5, 0.5]], [0, 1]) == pytest.approx(-np.log(2), abs=1e-14)
    tied = np.array([[0.4, 0.4, 0.2], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    # P(y, z) times 3: label 0 has 1/2 and 1/2 + 1 of classes 0 and 1, label 1 has 1 of class 0.
    expected = (0.5 * np.log(0.5 / 1.5) + 1.5 * np.log(1) + 1 * np.log(1 / 1.5)) / 3
    for order in ([0, 1, 2], [1, 0, 2]):
        assert transferability.nce(tied[:, order], [0, 0, 1]) == pytest.approx(expected, abs=1e-14)


# ---------------------------------------------------------------- H-score


@pytest.mark.parametrize(("features", "labels"), CASES)
def test_h_score_with_shrinkage_by_dense_algebra(features: np.ndarray, labels: np.ndarray):
    fitted = LedoitWolf().fit(features)
    means = np.stack([features[labels == y].mean(axis=0) for y in labels])
    between = np.cov(means.T, bias=True)
    expected = (1 - fitted.shrinkage_) * np.trace(np.linalg.solve(fitted.covariance_, between))
    assert transferability.h_score(features, labels) == pytest.approx(expected, rel=1e-10)


def test_h_score_without_shrinkage():
    """One feature: the between-class variance over the variance, by hand 4/5. Fewer examples than features: C - 1."""
    assert transferability.h_score([[1.0], [3.0], [-1.0], [-3.0]], [0, 0, 1, 1], shrinkage=0.0) == pytest.approx(0.8)
    assert transferability.h_score(WIDE, SHORT_LABELS, shrinkage=0.0) == pytest.approx(2.0, rel=1e-9)
    assert transferability.h_score(np.ones((4, 3)), [0, 0, 1, 1]) == 0.0


# ---------------------------------------------------------------- TransRate


@pytest.mark.parametrize(("features", "labels"), CASES)
def test_trans_rate_by_dense_algebra(features: np.ndarray, labels: np.ndarray):
    def rate(z: np.ndarray) -> float:
        return 0.5 * np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * 0.01))[1]

    centred = features - features.mean(axis=0)
    within = sum(np.mean(labels == c) * rate(centred[labels == c]) for c in np.unique(labels))
    expected = rate(centred) - within
    assert transferability.trans_rate(features, labels, distortion=0.01) == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- LogME


def _dense_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """The largest density over a fine grid of both variances and a search from its best point."""

    def negative(logs: np.ndarray) -> float:
        covariance = np.exp(logs[0]) * features @ features.T + np.exp(logs[1]) * np.eye(len(target))
        return -scipy.stats.multivariate_normal.logpdf(target, cov=covariance) / len(target)

    starts = [(a, b) for a in np.arange(-9.0, 5, 2) for b in np.arange(-7.0, 3, 2)]
    start = min(starts, key=lambda each: negative(np.array(each)))
    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000}
    return -scipy.optimize.minimize(negative, np.array(start), method="Nelder-Mead", options=options).fun


def test_log_me_is_the_largest_density_of_the_labels():
    expected = np.mean([_dense_evidence(TALL, np.equal(LONG_LABELS, c).astype(float)) for c in range(4)])
    assert transferability.log_me(TALL, LONG_LABELS) == pytest.approx(expected, abs=1e-8)
    targets = TALL @ np.arange(5.0) + RNG.normal(size=40)
    assert transferability.log_me(TALL, targets) == pytest.approx(_dense_evidence(TALL, targets), abs=1e-8)


def test_log_me_with_fewer_examples_than_features_is_bounded():
    """Interpolation has a finite evidence, N(y; 0, a F F^T) at its best a: the noise goes to 0."""
    target = WIDE @ np.linspace(0, 1, 20)
    gram = WIDE @ WIDE.T
    best = target @ np.linalg.solve(gram, target) / 8
    limit = -0.5 * (np.linalg.slogdet(2 * np.pi * best * gram)[1] / 8 + 1)
    value = transferability.log_me(WIDE, target)
    assert np.isfinite(value)
    assert value >= limit - 1e-6  # or more, with some noise
    # Features that say nothing at all: white noise of the mean square.
    assert transferability.log_me(np.zeros((4, 2)), np.array([1.0, -1, 1, -1])) == pytest.approx(
        -0.5 * np.log(2 * np.pi) - 0.5
    )
    # An exact fit by fewer features than examples has no best noise, and a bound.
    assert 5 < transferability.log_me(np.arange(1.0, 9)[:, None], np.arange(1.0, 9)) < 20


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: transferability.leep([[0.5, 0.2]], [0]), ValueError, "row 0 of probabilities sums to 0.7.*softmax"),
        (lambda: transferability.leep([[1.5, -0.5]] * 2, [0, 1]), ValueError, "negative or non-finite"),
        (lambda: transferability.nce([0.5, 0.5], [0, 1]), ValueError, "shape \\(2,\\)"),
        (lambda: transferability.nce([[1.0], [1.0]], [3, 3]), ValueError, "one class alone, 3"),
        (lambda: transferability.nce([[1.0], [1.0]], [0.0, 1.0]), TypeError, "whole numbers"),
        (lambda: transferability.h_score(np.ones((3, 2, 2)), [0, 1, 1]), ValueError, "average over positions"),
        (lambda: transferability.h_score(np.ones((3, 2)), [0, 1]), ValueError, "labels has shape \\(2,\\)"),
        (lambda: transferability.h_score(TALL, LONG_LABELS, shrinkage=2), ValueError, "shrinkage is 2"),
        (lambda: transferability.trans_rate([[np.nan], [1.0]], [0, 1]), ValueError, "1 non-finite of 2"),
        (lambda: transferability.trans_rate(TALL, LONG_LABELS, distortion=0), ValueError, "distortion is 0"),
        (lambda: transferability.log_me(TALL, np.zeros(40)), ValueError, "column 0 of targets is zero"),
        (lambda: transferability.log_me(TALL, np.ones((3, 1))), ValueError, "give \\(40,\\)"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
