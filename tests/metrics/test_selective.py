import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bayestl import metrics


def risks(losses):
    return np.cumsum(losses) / np.arange(1, len(losses) + 1)


def test_the_curve_of_a_hand_worked_case():
    curve = metrics.risk_coverage([0.9, 0.8, 0.3, 0.1], [0.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 2])
    np.testing.assert_allclose(curve.threshold, [0.9, 0.8, 0.3, 0.1])
    assert metrics.aurc([0.9, 0.8, 0.3, 0.1], [0, 1, 0, 1]) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    # The best order answers both right ones first: risks 0, 0, 1/3, 1/2.
    assert metrics.excess_aurc([0.9, 0.8, 0.3, 0.1], [0, 1, 0, 1]) == pytest.approx((1 / 2) / 4)


def test_equal_confidences_are_the_mean_over_all_their_orders():
    losses = np.array([0.0, 1.0, 3.0, 7.0])
    confidence = np.array([0.9, 0.5, 0.5, 0.5])
    orders = [np.array([0.0, *rest]) for rest in itertools.permutations(losses[1:])]
    assert metrics.aurc(confidence, losses) == pytest.approx(np.mean([risks(each).mean() for each in orders]))
    expected = np.mean([np.sum(np.cumsum(each) + np.cumsum([0.0, *each[:-1]])) / 2 / 16 for each in orders])
    assert metrics.augrc(confidence, losses) == pytest.approx(expected)


@pytest.mark.parametrize("digits", [8, 1])
def test_augrc_is_its_closed_form_for_errors(digits):
    rng = np.random.default_rng(1)
    errors = (rng.random(80) < 0.3).astype(float)
    confidence = (rng.normal(size=80) - errors).round(digits)
    wrong = errors.mean()
    ranks = roc_auc_score(1 - errors, confidence)
    expected = (1 - ranks) * (1 - wrong) * wrong + wrong**2 / 2
    assert metrics.augrc(confidence, errors) == pytest.approx(expected, rel=1e-12)


def test_the_best_order_has_no_excess():
    losses = np.random.default_rng(2).random(30)
    assert metrics.excess_aurc(-losses, losses) == pytest.approx(0.0, abs=1e-15)
    assert metrics.excess_aurc(losses, losses) > 0.1
    assert metrics.ause(losses, losses) == pytest.approx(0.0, abs=1e-15)
    # Left out at random, or all at the same confidence, the mean error stays what it is: the curve is 1.
    best = np.mean([np.sort(losses)[: 30 - k].mean() for k in range(30)]) / losses.mean()
    assert metrics.ause(np.ones(30), losses) == pytest.approx(1 - best)


def test_risk_at_a_coverage_and_coverage_at_a_risk():
    confidence, losses = np.arange(10, 0, -1.0), np.array([0, 0, 0, 1, 0, 0, 0, 0, 1, 1.0])
    assert metrics.risk_at_coverage(confidence, losses, coverage=0.8) == pytest.approx(1 / 8)
    assert metrics.risk_at_coverage(confidence, losses, coverage=0.71) == pytest.approx(1 / 8)
    assert metrics.coverage_at_risk(confidence, losses, risk=0.125) == pytest.approx(0.8)
    assert metrics.coverage_at_risk(confidence, losses, risk=0.05) == pytest.approx(0.3)
    assert metrics.coverage_at_risk(confidence, 1 - losses[::-1] * 0, risk=0.5) == 0.0


def test_a_run_of_equal_confidence_is_answered_whole_or_not_at_all():
    confidence, losses = np.array([0.9, 0.5, 0.5]), np.array([0.0, 0.0, 1.0])
    assert metrics.coverage_at_risk(confidence, losses, risk=0.3) == pytest.approx(1 / 3)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="confidence is of 2 examples and losses of 3"):
        metrics.aurc([1.0, 2.0], [0.0, 1.0, 0.0])
    with pytest.raises(ValueError, match=r"coverage is 1.5; it must lie between 0 and 1"):
        metrics.risk_at_coverage([1.0], [0.0], coverage=1.5)
    with pytest.raises(ValueError, match="errors must be at least 0"):
        metrics.ause([1.0, 2.0], [0.0, -1.0])
