"""Rankings of sources, and of rankings."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.stats

from bayestl import transferability
from bayestl.transferability import Source

KEY = jax.random.key(0)
LABELS = np.tile([0, 1, 2], 8)
RNG = np.random.default_rng(4)
SOURCES = {
    f"signal {signal}": Source(
        RNG.normal(size=(24, 4)) + signal * np.eye(3, 4)[LABELS],
        np.where(np.eye(3)[LABELS] > 0, 0.1 + 0.15 * signal, (0.9 - 0.15 * signal) / 2),
    )
    for signal in (0, 2, 5)
}


def test_every_score_sees_the_signal():
    ranking = transferability.rank_sources(SOURCES, LABELS)
    assert ranking.best == "signal 5"
    assert all(ranking.order(score)[0] == "signal 5" for score in ranking.scores)
    lines = str(ranking).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["source", "signal 5", "signal 2", "signal 0"]
    for column, score in enumerate(transferability.SCORES):
        printed = float(lines[1].split()[2 + column])
        assert printed == pytest.approx(ranking.scores[score][0], abs=5e-4)


def test_what_does_not_apply_is_left_out():
    ranking = transferability.rank_sources({"a": SOURCES["signal 2"].features, "b": SOURCES["signal 5"]}, LABELS)
    assert ranking.order("LEEP") == ("b",)
    assert "-" in str(ranking).splitlines()[2].split()
    numbers = SOURCES["signal 5"].features @ np.ones(4) + RNG.normal(size=24)
    ranking = transferability.rank_sources(SOURCES, numbers)
    assert ranking.best == "signal 5"
    assert ranking.order("H-score") == ()


def test_a_source_with_a_head_of_the_same_classes():
    """The head is right: a last layer around it predicts better than one around zero; were it wrong, it is left."""
    features, logits = RNG.normal(size=(24, 4)), 5 * np.eye(3)[LABELS]
    ranking = transferability.rank_sources(
        {"none": Source(features), "right": Source(features, None, logits), "wrong": Source(features, None, -logits)},
        LABELS,
    )
    values = dict(zip(ranking.names, ranking.scores["held-out"], strict=True))
    assert values["right"] > values["none"] + 0.5
    assert values["wrong"] >= values["none"]


def test_of_many_examples_some_are_taken_from_every_class():
    labels = np.repeat([0, 1], [50, 5])
    features = RNG.normal(size=(55, 2))
    counted = {}
    transferability.rank_sources(
        {"a": features}, labels, scores={"n": lambda s, y: counted.update(n=y) or 0.0}, most=12
    )
    assert np.bincount(counted["n"]).tolist() == [7, 5]


def test_ties_keep_the_order_given():
    features = SOURCES["signal 2"].features
    assert transferability.rank_sources({"b": features, "a": features}, LABELS).names == ("b", "a")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "at least one source"),
        ({"a": np.ones((3, 2))}, "source 'a' has features of 3 examples.*targets of 24"),
        ({"a": np.full((24, 2), np.nan)}, "source 'a': features has 48 non-finite"),
        ({"a": Source(np.ones((24, 2)), np.ones((24, 2)))}, "source 'a': row 0 of probabilities"),
    ],
)
def test_bad_sources(sources: dict, message: str):
    with pytest.raises(ValueError, match=message):
        transferability.rank_sources(sources, LABELS)


# ---------------------------------------------------------------- rank correlation


def test_rank_correlation_is_kendalls():
    x, y = RNG.integers(5, size=15), RNG.integers(5, size=15) + np.arange(15) / 5
    result = transferability.rank_correlation(KEY, x, y, num_bootstrap=10)
    assert result.tau == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-13)


def test_only_pairs_of_one_target_count():
    """Ranked alike within two targets, the other way round between them."""
    x, y, groups = [1, 2, 3, 11, 12, 13], [11, 12, 13, 1, 2, 3], ["a"] * 3 + ["b"] * 3
    assert transferability.rank_correlation(KEY, x, y, groups=groups, num_bootstrap=10).tau == 1
    assert transferability.rank_correlation(KEY, x, y, num_bootstrap=10).tau == pytest.approx((6 - 9) / 15)


def test_the_interval_is_that_of_scipys_bootstrap():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    draws = []
    for _ in range(400):
        rows = rng.integers(40, size=40)
        draws.append(scipy.stats.kendalltau(x[rows], y[rows]).statistic)
    low, high = transferability.rank_correlation(KEY, x, y, num_bootstrap=400).interval
    # Rows that were drawn twice tie in both, which tau-b leaves out as we do. Quantiles of 400 draws: 0.05.
    np.testing.assert_allclose([low, high], np.quantile(draws, [0.025, 0.975]), atol=0.08)


def test_bad_input_of_rank_correlation():
    with pytest.raises(ValueError, match="n at least 3"):
        transferability.rank_correlation(KEY, [1, 2], [1, 2])
    with pytest.raises(ValueError, match="NaN"):
        transferability.rank_correlation(KEY, [1, 2, np.nan], [1, 2, 3])
    with pytest.raises(ValueError, match="one target per source"):
        transferability.rank_correlation(KEY, [1, 2, 3], [1, 2, 3], groups=["a"])
    assert np.isnan(transferability.rank_correlation(KEY, [1, 1, 1], [1, 2, 3], num_bootstrap=10).tau)
