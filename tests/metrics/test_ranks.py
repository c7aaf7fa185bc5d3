import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from bayestl import metrics


@pytest.fixture(params=["continuous", "ties"])
def scores(request):
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=70), rng.normal(0.8, 1.2, size=40)
    return (inside, outside) if request.param == "continuous" else (inside.round(), outside.round())


def both(inside, outside):
    return np.concatenate([np.zeros(len(inside)), np.ones(len(outside))]), np.concatenate([inside, outside])


def test_auroc_is_that_of_sklearn(scores):
    assert metrics.auroc(*scores) == pytest.approx(roc_auc_score(*both(*scores)), rel=1e-12)


def test_average_precision_is_that_of_sklearn(scores):
    expected = average_precision_score(*both(*scores))
    assert metrics.average_precision(*scores) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.95])
def test_false_positive_rate_is_on_the_curve_of_sklearn(scores, rate):
    false, true, _ = roc_curve(*both(*scores), drop_intermediate=False)
    expected = false[np.argmax(true >= rate - 1e-12)]
    assert metrics.false_positive_rate(*scores, true_positive_rate=rate) == pytest.approx(expected, abs=1e-12)


def test_scores_that_tell_nothing_and_everything():
    same = np.ones(5)
    assert metrics.auroc(same, same) == 0.5
    assert metrics.average_precision(same, np.ones(15)) == 0.75
    assert metrics.auroc([0.0, 1.0], [2.0, np.inf]) == 1.0
    assert metrics.false_positive_rate([0.0, 1.0], [2.0, 3.0]) == 0.0


@pytest.mark.parametrize("function", [metrics.auroc, metrics.average_precision, metrics.false_positive_rate])
def test_what_cannot_be_ranked_is_refused(function):
    with pytest.raises(ValueError, match=r"scores_out has shape \(0,\)"):
        function([1.0], np.zeros(0))
    with pytest.raises(ValueError, match="scores_in is NaN for 1 of 2 examples"):
        function([1.0, np.nan], [1.0])
    with pytest.raises(ValueError, match=r"shape \(1, 2\); give one number per example"):
        function([[1.0, 2.0]], [1.0])
