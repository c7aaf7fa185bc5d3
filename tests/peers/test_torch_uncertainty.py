"""The same predictions in torch-uncertainty 0.12: its metrics, which scikit-learn has not, and where ours differ."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import metrics

NUM, DRAWS, CLASSES = 200, 5, 4
RNG = np.random.default_rng(0)
LOGITS = 1.5 * RNG.normal(size=(NUM, 1, CLASSES)) + RNG.normal(size=(NUM, DRAWS, CLASSES))
EACH = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
PROBS = EACH.mean(1)
LABELS = np.where(RNG.random(NUM) < 0.6, PROBS.argmax(1), RNG.integers(CLASSES, size=NUM))
CONFIDENCE, WRONG = PROBS.max(1), (PROBS.argmax(1) != LABELS).astype(float)
# Theirs are float32.
RTOL = 2e-5


def peer(room: str = "") -> Any:
    """The metrics of torch-uncertainty; skips where it is not installed."""
    pytest.importorskip("torch")
    if "torch_uncertainty" not in sys.modules:
        spec = importlib.util.find_spec("torch_uncertainty")
        if spec is None:
            pytest.skip("torch-uncertainty is not installed")
        # Without its __init__, which imports trainers and their command lines, and much that these need.
        sys.modules["torch_uncertainty"] = package = types.ModuleType("torch_uncertainty")
        package.__path__ = list(spec.submodule_search_locations or ())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(f"torch_uncertainty.metrics{room}", exc_type=ImportError)


def value(metric: Any, *given: np.ndarray) -> Any:
    """What a metric of theirs says of arrays."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric.update(*(torch.from_numpy(np.ascontiguousarray(each)) for each in given))
        return np.asarray(metric.compute())


def predictive() -> Any:
    logits = jnp.log(jnp.asarray(EACH)).swapaxes(0, 1)
    return btl.predict.Predictive(logits, btl.likelihoods.categorical(), jnp.full(DRAWS, -np.log(DRAWS)))


@pytest.mark.x64
def test_areas_under_risk_coverage_curves():
    """Theirs begin at the first answer, by the trapezoidal rule, and are stretched by N / (N - 1)."""
    theirs = peer(".classification")
    risks = metrics.risk_coverage(CONFIDENCE, WRONG).risk
    expected = value(theirs.AURC(), PROBS, LABELS)
    ends = (risks[0] + risks[-1]) / 2
    ours = metrics.aurc(CONFIDENCE, WRONG)
    np.testing.assert_allclose((NUM * ours - ends) / (NUM - 1), expected, rtol=RTOL)
    expected = value(theirs.AUGRC(), PROBS, LABELS)
    first = risks[0] / (2 * NUM**2)
    np.testing.assert_allclose((metrics.augrc(CONFIDENCE, WRONG) - first) * NUM / (NUM - 1), expected, rtol=RTOL)


@pytest.mark.x64
@pytest.mark.parametrize("threshold", [0.04, 0.05])
def test_coverage_at_a_risk_and_risk_at_a_coverage(threshold):
    """Theirs say NaN where the risk of as many answers as are left out is too high: labels are easy enough here."""
    theirs = peer(".classification")
    labels = np.where(CONFIDENCE > 0.5, PROBS.argmax(1), LABELS)
    wrong = (PROBS.argmax(1) != labels).astype(float)
    ours = metrics.coverage_at_risk(CONFIDENCE, wrong, risk=threshold)
    assert 0.5 < ours < 1
    np.testing.assert_allclose(ours, value(theirs.CovAtxRisk(threshold), PROBS, labels), rtol=RTOL)
    np.testing.assert_allclose(
        metrics.risk_at_coverage(CONFIDENCE, wrong), value(theirs.RiskAt80Cov(), PROBS, labels), rtol=RTOL
    )
    # Unknown examples among known ones: theirs takes every known answer for right.
    is_unknown = (np.arange(NUM) >= 150).astype(int)
    scores = 1 - CONFIDENCE + 0.3 * is_unknown
    risks = metrics.risk_coverage(-scores, is_unknown).risk
    expected = value(theirs.SCODAURC(), scores, is_unknown)
    ours = metrics.aurc(-scores, is_unknown)
    np.testing.assert_allclose((NUM * ours - (risks[0] + risks[-1]) / 2) / (NUM - 1), expected, rtol=RTOL)
    expected = value(theirs.SCODRiskAt80Cov(), scores, is_unknown)
    np.testing.assert_allclose(metrics.risk_at_coverage(-scores, is_unknown), expected, rtol=RTOL)


@pytest.mark.x64
def test_false_positives_where_most_unknown_examples_are_recognised():
    """Of all thresholds at which 38 of 40 are recognised theirs takes the lowest, which is next to that of 39, and ours
    the highest, as the curve of scikit-learn has it."""
    theirs = peer(".classification")
    scores, is_unknown = np.concatenate([RNG.normal(size=160), RNG.normal(1.5, size=40)]), np.repeat([0, 1], [160, 40])
    expected = value(theirs.FPR95(pos_label=1), scores, is_unknown)
    ours = [metrics.false_positive_rate(scores[:160], scores[160:], true_positive_rate=rate / 40) for rate in (38, 39)]
    assert ours[0] < ours[1]
    np.testing.assert_allclose(ours[1], expected, rtol=RTOL)


@pytest.mark.x64
@pytest.mark.parametrize("bins", [10, 20])
def test_calibration_errors(bins):
    """Bins that hold equally many: the same where their number divides that of the examples."""
    theirs, given = peer(".classification"), btl.predict.from_probabilities(jnp.asarray(PROBS))
    options = {"task": "multiclass", "num_classes": CLASSES, "num_bins": bins}
    expected = value(theirs.CalibrationError(**options), PROBS, LABELS)
    np.testing.assert_allclose(metrics.ece(given, LABELS, num_bins=bins), expected, rtol=RTOL)
    expected = value(theirs.CalibrationError(**options, norm="max"), PROBS, LABELS)
    np.testing.assert_allclose(metrics.max_calibration_error(given, LABELS, num_bins=bins), expected, rtol=RTOL)
    expected = value(theirs.AdaptiveCalibrationError(**options), PROBS, LABELS)
    np.testing.assert_allclose(metrics.ece_equal_mass(given, LABELS, num_bins=bins), expected, rtol=RTOL)
    expected = value(theirs.ClasswiseCalibrationError(CLASSES, num_bins=bins), PROBS, LABELS)
    np.testing.assert_allclose(metrics.ece_classwise(given, LABELS, num_bins=bins), expected, rtol=RTOL)


@pytest.mark.x64
def test_calibration_error_without_bins():
    """Theirs with the kernel that is reflected at the ends, on a grid: some three digits."""
    theirs, given = peer(".classification"), btl.predict.from_probabilities(jnp.asarray(PROBS))
    smooth = theirs.SmoothCalibrationError(kernel_type="reflected", refine_steps=20, mesh_pts=2000)
    np.testing.assert_allclose(
        metrics.ece_smooth(given, LABELS), value(smooth, PROBS.astype(np.float32), LABELS), rtol=5e-3
    )


@pytest.mark.x64
def test_proper_scores():
    theirs, given = peer(".classification"), btl.predict.from_probabilities(jnp.asarray(PROBS))
    expected = value(theirs.BrierScore(num_classes=CLASSES), PROBS, LABELS)
    np.testing.assert_allclose(metrics.brier(given, LABELS), expected, rtol=RTOL)
    expected = value(theirs.CategoricalNLL(), PROBS, LABELS)
    np.testing.assert_allclose(metrics.nll(given, LABELS), expected, rtol=RTOL)


@pytest.mark.x64
def test_what_draws_disagree_on():
    theirs, given = peer(".classification"), predictive()
    expected = value(theirs.MutualInformation(reduction="none"), EACH)
    np.testing.assert_allclose(given.mutual_information(), expected, rtol=1e-4, atol=1e-6)
    expected = value(theirs.Entropy(reduction="none"), EACH)
    np.testing.assert_allclose(given.expected_entropy(), expected, rtol=RTOL)
    expected = value(theirs.Entropy(reduction="none"), PROBS)
    np.testing.assert_allclose(given.predictive_entropy(), expected, rtol=RTOL)
    expected = value(theirs.Disagreement(reduction="none"), EACH)
    np.testing.assert_allclose(btl.predict.acquisition.disagreement(given), expected, atol=1e-6)
    # Theirs counts the draws that differ from the class of the mean; that is the class of most draws for these.
    votes = (EACH.argmax(2)[..., None] == np.arange(CLASSES)).sum(1)
    alike = votes[np.arange(NUM), PROBS.argmax(1)] == votes.max(1)
    assert alike.sum() > 100
    expected = value(theirs.VariationRatio(probabilistic=False, reduction="none"), EACH.swapaxes(0, 1))
    np.testing.assert_allclose(btl.predict.acquisition.variation_ratio(given)[alike], expected[alike], atol=1e-6)


@pytest.mark.x64
def test_sparsification():
    """Theirs adds up the errors that are left, where ours takes their mean, as the paper does: an excess of AUGRC."""
    theirs = peer()
    errors, uncertainty = np.abs(RNG.normal(size=NUM)), RNG.random(NUM)
    uncertainty += errors
    expected = value(theirs.AUSE(), uncertainty, errors)
    left = np.cumsum(errors[np.argsort(uncertainty)]) - np.cumsum(np.sort(errors))
    excess = NUM**2 * (metrics.augrc(-uncertainty, errors) - metrics.augrc(-errors, errors))
    np.testing.assert_allclose((excess - left[0] / 2) / (NUM + 1) / errors.sum(), expected, rtol=1e-4)
    means = left / np.arange(1, NUM + 1) / errors.mean()
    np.testing.assert_allclose(metrics.ause(uncertainty, errors), means.mean(), rtol=1e-10)


@pytest.mark.x64
def test_sets_of_classes():
    theirs = peer(".classification")
    sets = btl.predict.conformal.classes(PROBS[:100], LABELS[:100], level=0.8)(PROBS[100:])
    as_shares = sets / sets.sum(1, keepdims=True)
    expected = value(theirs.CoverageRate(num_classes=CLASSES, average="micro"), as_shares, LABELS[100:])
    np.testing.assert_allclose(sets[np.arange(100), LABELS[100:]].mean(), expected, rtol=RTOL)
    np.testing.assert_allclose(sets.sum(1).mean(), value(theirs.SetSize(), as_shares), rtol=RTOL)


@pytest.mark.x64
def test_grouping_loss():
    """What torch-uncertainty calls: glest, of both classes, and so twice ours. Its bins induce what is found by nearest
    neighbours, where ours has isotonic regression; here bins hold one confidence each, and nothing is induced."""
    glest = pytest.importorskip("glest")
    rng = np.random.default_rng(1)
    confidence, kinds = rng.choice([0.55, 0.7, 0.9], size=600), rng.integers(3, size=600)
    correct = (rng.random(600) < confidence + 0.1 * (kinds - 1)).astype(int)
    rising = [correct[confidence == level].mean() for level in (0.55, 0.7, 0.9)]
    assert rising == sorted(rising)
    estimator = glest.GLEstimator(confidence, partitioner=None)
    theirs = estimator.fit(np.zeros((600, 1)), correct, partition=kinds).metrics("brier")
    ours = metrics.grouping_loss(confidence, correct, kinds)
    np.testing.assert_allclose(2 * ours, theirs["GL_uncorrected"] - theirs["GL_bias"], rtol=1e-10)
