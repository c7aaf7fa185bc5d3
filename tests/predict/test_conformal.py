"""Coverage against its exact distribution, and scores against cases worked out by hand."""

import jax
import numpy as np
import pytest
from scipy import stats

from bayestl.predict import conformal

KEY = jax.random.key(0)


def hard_problem(rng, num):
    """Probabilities that are wrong in a known way, and labels from others."""
    logits = rng.normal(size=(num, 5)) * 2
    truth = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (truth.cumsum(1) > rng.random((num, 1))).argmax(1)
    sure = np.exp(3 * logits)
    return sure / sure.sum(1, keepdims=True), labels


def check_beta_binomial(covered, num_calibration, num_test, level):
    """Over random splits the number of covered test examples is beta-binomial: Vovk 2012, Angelopoulos and Bates."""
    rank = int(np.ceil((num_calibration + 1) * level - 1e-9))
    exact = stats.betabinom(num_test, rank, num_calibration + 1 - rank)
    assert abs(np.mean(covered) - exact.mean()) < 4 * exact.std() / np.sqrt(len(covered))
    grid = np.arange(num_test + 1)
    empirical = np.searchsorted(np.sort(covered), grid, side="right") / len(covered)
    # Kolmogorov and Smirnov's bound, which is conservative for whole numbers; .1% level.
    assert np.abs(empirical - exact.cdf(grid)).max() < 1.95 / np.sqrt(len(covered))


@pytest.mark.parametrize("score", [conformal.adaptive, conformal.regularized(penalty=0.05, free=2)])
def test_coverage_of_random_sets_is_exactly_beta_binomial(score):
    rng = np.random.default_rng(1)
    covered = []
    for split in range(400):
        probabilities, labels = hard_problem(rng, 130)
        sets = conformal.classes(
            probabilities[:30], labels[:30], level=0.8, score=score, key=jax.random.fold_in(KEY, split)
        )
        covered.append(sets(probabilities[30:])[np.arange(100), labels[30:]].sum())
    check_beta_binomial(covered, 30, 100, 0.8)


def test_coverage_of_intervals_and_of_quantiles_is_exactly_beta_binomial():
    rng = np.random.default_rng(2)
    around, between = [], []
    for _ in range(400):
        x = rng.normal(size=130)
        y = x + rng.standard_t(3, size=130) * np.exp(x / 2)
        box = conformal.intervals(x[:30], y[:30], level=0.9, scale=np.exp(x[:30] / 3))
        low, high = box(x[30:], scale=np.exp(x[30:] / 3))
        around.append(((low <= y[30:]) & (y[30:] <= high)).sum())
        box = conformal.quantiles(x[:30] - 2, x[:30] + 1, y[:30], level=0.9)
        low, high = box(x[30:] - 2, x[30:] + 1)
        between.append(((low <= y[30:]) & (y[30:] <= high)).sum())
    check_beta_binomial(around, 30, 100, 0.9)
    check_beta_binomial(between, 30, 100, 0.9)


def test_too_few_examples_for_a_level_give_everything():
    sets = conformal.classes([[0.9, 0.1]] * 8, [0] * 8, level=0.9)  # nine would do
    assert sets([[1.0, 0.0]]).all()
    low, high = conformal.intervals(np.zeros(8), np.ones(8), level=0.9)([0.0])
    assert (low[0], high[0]) == (-np.inf, np.inf)
    assert conformal.intervals(np.zeros(9), np.ones(9), level=0.9)([0.0])[1][0] == 1.0


def test_adaptive_scores_by_hand():
    scores = conformal.adaptive(np.array([[0.2, 0.5, 0.3]]), np.array([0.5]))
    np.testing.assert_allclose(scores, [[0.8 + 0.1, 0.25, 0.5 + 0.15]])
    # The reference worked out in the paper's algorithm: lambda (rank - k)^+ on top.
    more = conformal.regularized(penalty=0.1, free=1)(np.array([[0.2, 0.5, 0.3]]), np.array([0.5]))
    np.testing.assert_allclose(more, [[0.9 + 0.2, 0.25, 0.65 + 0.1]])


def test_equal_weights_and_a_single_group_change_nothing():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 25))
    plain = conformal.intervals(x, y, level=0.8)([0.0, 1.0])
    weighted = conformal.intervals(x, y, level=0.8, weights=np.full(25, 3.0))([0.0, 1.0], weights=np.full(2, 3.0))
    grouped = conformal.intervals(x, y, level=0.8, groups=["a"] * 25)([0.0, 1.0], groups=["a", "a"])
    np.testing.assert_array_equal(plain, weighted)
    np.testing.assert_array_equal(plain, grouped)


def test_weights_repair_a_covariate_shift_that_is_known():
    """x ~ uniform before, density 2x after; the noise grows with x, so that plain intervals cover too little."""
    rng = np.random.default_rng(4)
    plain, weighted = [], []
    for _ in range(300):
        x, new = rng.random(100), np.sqrt(rng.random(50))
        y, after = rng.normal(size=100) * x**2, rng.normal(size=50) * new**2
        for covered, options in ((plain, [None, None]), (weighted, [2 * x, 2 * new])):
            low, high = conformal.intervals(0 * x, y, level=0.8, weights=options[0])(0 * new, weights=options[1])
            covered.append(((low <= after) & (after <= high)).mean())
    error = np.std(weighted) / np.sqrt(300)
    assert np.mean(plain) < 0.75
    # Never below the level, and above it by no more than the largest share of one example.
    assert 0.8 - 3 * error < np.mean(weighted) < 0.8 + 0.03 + 3 * error


def test_each_group_is_covered():
    rng = np.random.default_rng(5)
    groups = np.arange(400) % 2
    y = rng.normal(size=400) * np.where(groups == 1, 5.0, 1.0)
    _, high = conformal.intervals(0 * y, y, level=0.9, groups=groups)(np.zeros(2), groups=[0, 1])
    assert 3 < high[1] / high[0] < 8
    with pytest.raises(ValueError, match=r"groups \[7\] had no calibration example; there are \[0, 1\]"):
        conformal.intervals(0 * y, y, groups=groups)([0.0], groups=[7])
    with pytest.raises(ValueError, match="were calibrated with groups; give groups too"):
        conformal.intervals(0 * y, y, groups=groups)([0.0])


def test_jackknife_plus_is_the_definition_and_covers():
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(200):
        num = 20
        y = rng.normal(size=num) ** 3
        new = rng.normal() ** 3
        left_out = (y.sum() - y) / (num - 1)  # the mean of the others
        low, high = conformal.jackknife_plus(left_out, y, level=0.8)(left_out[:, None])
        residuals = np.abs(y - left_out)
        below, above = np.sort(left_out - residuals), np.sort(left_out + residuals)
        assert low[0] == below[int(np.floor(0.2 * 21)) - 1]
        assert high[0] == above[int(np.ceil(0.8 * 21)) - 1]
        covered.append(low[0] <= new <= high[0])
    assert np.mean(covered) > 0.8 - 4 * np.sqrt(0.8 * 0.2 / 200)


def test_folds_share_their_models_predictions():
    rng = np.random.default_rng(7)
    folds, y, left_out, new = (
        np.array([0, 0, 1, 1, 2, 2]),
        rng.normal(size=6),
        rng.normal(size=6),
        rng.normal(size=(3, 4)),
    )
    by_fold = conformal.jackknife_plus(left_out, y, level=0.7, folds=folds)(new)
    by_example = conformal.jackknife_plus(left_out, y, level=0.7)(new[folds])
    np.testing.assert_array_equal(by_fold, by_example)
    with pytest.raises(ValueError, match="predictions are of 2 models, but 3 left examples out"):
        conformal.jackknife_plus(left_out, y, folds=folds)(new[:2])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"level is 1.0; a coverage lies between 0 and 1"):
        conformal.intervals([0.0], [0.0], level=1.0)
    with pytest.raises(ValueError, match="give the probs of a predictive"):
        conformal.classes([[2.0, -1.0]], [0])
    with pytest.raises(ValueError, match="labels are from 2 to 2; there are classes 0 to 1"):
        conformal.classes([[0.5, 0.5]], [2])
    with pytest.raises(TypeError, match="labels are integers"):
        conformal.classes([[0.5, 0.5]], [0.0])
    with pytest.raises(ValueError, match="scale is not above 0 for 1 of 2 examples"):
        conformal.intervals([0.0, 0.0], [1.0, 1.0], scale=[1.0, 0.0])
