"""Calibration after the fact, against scipy, scikit-learn and laws of maximum likelihood."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from bayestl import likelihoods, metrics
from bayestl.predict import Predictive, calibrate

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


def test_levels_are_right_for_targets_that_were_held_out():
    """The mean level of a new transform under the map is exact: the k-th of N uniform numbers has the mean k/(N+1)."""
    transforms = stats.norm.cdf(3 * RNG.normal(size=199) + 0.3)  # a predictive that is too sure, and biased
    right = calibrate.levels(transforms)
    for k in (1, 50, 190):
        assert right(k / 200) == pytest.approx(np.sort(transforms)[k - 1])
    assert np.mean(transforms <= right(0.9)) == pytest.approx(0.9, abs=1 / 199)
    np.testing.assert_allclose(right.probability([right(0.25), right(0.7)]), [0.25, 0.7])
    # New targets lie below the quantile with the probability that was asked for; over draws of both, exactly.
    covered = []
    for _ in range(400):
        held_out, new = stats.norm.cdf(3 * RNG.normal(size=(2, 39)) + 0.3)
        covered.append(np.mean(new <= calibrate.levels(held_out)(0.9)))
    assert abs(np.mean(covered) - 0.9) < 4 * np.std(covered) / 20


def test_levels_make_the_quantiles_of_a_predictive_right():
    targets = 2 * RNG.normal(size=500)
    held_out, new = (
        Predictive(jnp.zeros((1, 250)), likelihoods.normal(1.0), jnp.zeros(1)) for _ in range(2)
    )  # fmt: skip
    right = calibrate.levels(metrics.pit(held_out, targets[:250]))
    below = [np.mean(targets[250:] <= np.asarray(new.quantile(level))) for level in (right(0.95), 0.95)]
    assert abs(below[0] - 0.95) < 0.05 < 0.95 - below[1]


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
    with pytest.raises(ValueError, match=r"transforms are from 0\.5 to 2; give what metrics\.pit gives"):
        calibrate.levels([0.5, 2.0])
    with pytest.raises(ValueError, match="level is 1; it lies between 0 and 1"):
        calibrate.levels([0.5])(1)
