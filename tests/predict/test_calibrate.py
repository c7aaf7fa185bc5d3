"""Calibration after the fact, against scipy, scikit-learn and laws of maximum likelihood."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from bayestl.predict import calibrate

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(400, 3)) * 2
LABELS = (softmax(LOGITS / 2.5 + np.array([0.5, 0.0, -0.5]), 1).cumsum(1) > RNG.random((400, 1))).argmax(1)
PROBABILITIES = softmax(LOGITS, 1)


def nll(probabilities):
    return -np.mean(np.log(probabilities[np.arange(400), LABELS]))


def test_the_temperature_is_that_of_a_search_along_a_line():
    best = minimize_scalar(
        lambda t: nll(softmax(LOGITS / t, 1)), bounds=(0.1, 20), method="bounded", options={"xatol": 1e-10}
    )
    made = calibrate.temperature(LOGITS, LABELS)
    assert made.temperature == pytest.approx(best.x, rel=1e-5)
    np.testing.assert_allclose(made(LOGITS), softmax(LOGITS / best.x, 1), atol=1e-6)
    assert np.array_equal(made(LOGITS).argmax(1), LOGITS.argmax(1))


def test_at_the_maximum_every_class_is_right_on_average():
    """The gradient in the offset is 0: mean probabilities are the shares of the labels. That in the weights: the same,
    weighed by the logits."""
    made = calibrate.vector(LOGITS, LABELS)(LOGITS)
    hot = np.eye(3)[LABELS]
    np.testing.assert_allclose(made.mean(0), hot.mean(0), atol=1e-6)
    np.testing.assert_allclose((made * LOGITS).mean(0), (hot * LOGITS).mean(0), atol=1e-6)
    assert nll(made) < nll(calibrate.temperature(LOGITS, LABELS)(LOGITS))


def test_a_matrix_without_a_penalty_is_logistic_regression():
    made = calibrate.dirichlet(PROBABILITIES, LABELS, penalty=0.0)
    other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(log_softmax(LOGITS, 1), LABELS)
    np.testing.assert_allclose(made(PROBABILITIES), other.predict_proba(log_softmax(LOGITS, 1)), atol=1e-4)


def test_a_large_penalty_leaves_a_number_for_each_class():
    made = calibrate.dirichlet(PROBABILITIES, LABELS, penalty=1e4)
    assert np.abs(made.matrix[~np.eye(3, dtype=bool)]).max() < 1e-3
    assert np.abs(made.offset).max() < 1e-3


def test_isotonic_is_that_of_sklearn():
    made = calibrate.isotonic(PROBABILITIES, LABELS)
    new = softmax(RNG.normal(size=(50, 3)), 1)
    columns = [
        IsotonicRegression(out_of_bounds="clip").fit(PROBABILITIES[:, c], c == LABELS).predict(new[:, c])
        for c in range(3)
    ]
    expected = np.stack(columns, 1)
    np.testing.assert_allclose(made(new), expected / expected.sum(1, keepdims=True), atol=1e-12)


def test_bins_hold_equally_many_and_give_their_shares():
    made = calibrate.histogram(PROBABILITIES, LABELS, num_bins=4)
    order = np.argsort(PROBABILITIES[:, 0])
    for number in range(4):
        rows = order[number * 100 : (number + 1) * 100]
        assert made.values[0][number] == pytest.approx((np.sum(LABELS[rows] == 0) + 1 / 3) / 101)
    np.testing.assert_allclose(made(PROBABILITIES).sum(1), 1.0)


def test_the_factor_makes_the_standardized_errors_those_of_a_standard_normal():
    mean, deviation = RNG.normal(size=100), RNG.random(100) + 0.5
    targets = mean + 3 * deviation * RNG.normal(size=100)
    factor = calibrate.deviation_factor(mean, deviation, targets)
    assert np.mean(((targets - mean) / (factor * deviation)) ** 2) == pytest.approx(1.0)


def test_labels_that_are_separated_do_not_break_it():
    made = calibrate.temperature([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    assert np.isfinite(made([[1.0, 0.0]])).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="there are 2 classes here, but 3 where it was fitted"):
        calibrate.temperature(LOGITS, LABELS)(LOGITS[:, :2])
    with pytest.raises(ValueError, match="num_bins is 401; give 1 to 400"):
        calibrate.histogram(PROBABILITIES, LABELS, num_bins=401)
    with pytest.raises(ValueError, match="logits is not finite in 1 of 2 places"):
        calibrate.temperature([[np.nan, 0.0]], [0])
    with pytest.raises(ValueError, match="penalty is -1; it must be at least 0"):
        calibrate.dirichlet(PROBABILITIES, LABELS, penalty=-1)
