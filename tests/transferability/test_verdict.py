"""The verdict: its interval against closed forms, its outcome where the answer is known, its words."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.stats

import bayestl as btl
from bayestl.transferability._bootstrap import bootstrap_means, expanded_interval

KEY = jax.random.key(0)


def test_the_interval_of_a_mean_is_students():
    """For normal examples the bootstrap's distribution is near normal, and the expanded interval near Student's."""
    values = np.random.default_rng(1).normal(0.3, 1.0, (1, 40))
    values = (values - values.mean()) / values.std(ddof=1) + 0.3
    low, high = expanded_interval(bootstrap_means(KEY, values, 100_000)[0], 40, 0.95)
    half = scipy.stats.t.ppf(0.975, 39) / np.sqrt(40)
    # 100,000 draws leave 0.4% of the half width, third moments of these 40 examples a few percent.
    assert 0.5 * (high - low) == pytest.approx(half, rel=0.02)
    assert 0.5 * (high + low) == pytest.approx(0.3, abs=0.1 * half)


def test_bootstrap_draws_are_shared_by_rows_and_have_the_variance_of_the_mean():
    values = np.random.default_rng(2).normal(size=(1, 25))
    means = bootstrap_means(KEY, np.concatenate([values, 2 * values]), 50_000)
    np.testing.assert_allclose(means[1], 2 * means[0], rtol=1e-12)
    assert means[0].var() == pytest.approx(values.var() / 25, rel=0.03)  # 4 standard errors of a variance


def test_outcomes_are_right_at_the_stated_rate():
    """Three kinds of targets: the interval finds a difference of 0 to exclude 0 in about 5% of 200 sets, and one of
    two standard deviations always."""
    rng = np.random.default_rng(3)
    outcomes = {shift: [] for shift in (0.0, 2.0, -2.0)}
    for shift, results in outcomes.items():
        for _ in range(200 if shift == 0 else 20):
            base = rng.normal(-1, 1, 12)
            held_out = {"from scratch": base, "transfer": base + rng.normal(shift, 1, 12)}
            results.append(btl.transferability.verdict(KEY, held_out, num_bootstrap=500).outcome)
    assert set(outcomes[2.0]) == {"helps"}
    assert set(outcomes[-2.0]) == {"hurts"}
    wrong = np.mean([outcome != "no clear difference" for outcome in outcomes[0.0]])
    assert wrong < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)


def test_pairs_and_words():
    base = np.linspace(-2, -1, 10)
    wiggle = 0.01 * np.cos(np.arange(10))
    held_out = {"from scratch": base, "initialisation only": base + 0.5, "transfer": base + 0.5 + wiggle}
    result = btl.transferability.verdict(KEY, held_out)
    assert [(p.candidate, p.reference, p.outcome) for p in result.pairs] == [
        ("transfer", "from scratch", "helps"),
        ("transfer", "initialisation only", "no clear difference"),
        ("initialisation only", "from scratch", "helps"),
    ]
    assert result.difference == pytest.approx(0.5 + wiggle.mean())
    assert result.interval[0] < result.difference < result.interval[1]
    assert "'initialisation only' does about as well" in str(result)
    assert len(result.table().splitlines()) == 3

    worse = btl.transferability.verdict(KEY, {**held_out, "transfer": base - 1})
    assert worse.outcome == "hurts"
    assert "Use 'from scratch'" in worse.text
    assert "use that" in worse.text


def test_equal_predictions_and_few_examples_are_no_clear_difference():
    base = np.linspace(-2, -1, 10)
    same = btl.transferability.verdict(KEY, {"from scratch": base, "transfer": base})
    assert (same.outcome, same.interval) == ("no clear difference", (0.0, 0.0))
    assert "No difference that matters" in same.text
    exactly = btl.transferability.verdict(KEY, {"from scratch": base, "transfer": base}, margin=0)
    assert "They predict the same" in exactly.text
    for num in (1, 5):
        few = btl.transferability.verdict(KEY, {"from scratch": base[:num], "transfer": base[:num] + 5})
        assert few.outcome == "no clear difference"
        assert few.difference == pytest.approx(5)
        assert "cannot tell" in few.text


def test_differences_below_the_margin_do_not_matter():
    """A difference whose sign is certain, held against margins on both sides of it: the words change where it does."""
    base = np.linspace(-2, -1, 30)
    for sign, effect in ((1, "helps"), (-1, "hurts")):
        held_out = {"from scratch": base, "transfer": base + sign * 0.03 + 0.002 * np.cos(np.arange(30))}
        beyond = btl.transferability.verdict(KEY, held_out, margin=0.02)
        assert beyond.outcome == effect
        below = btl.transferability.verdict(KEY, held_out, margin=0.05)
        assert below.outcome == "no clear difference"
        assert f"The source {effect}, but by less than matters" in below.text
        assert (below.interval, below.margin) == (beyond.interval, 0.05)
    # The sign is not certain, but that it does not matter is.
    noise = np.array([0.01, -0.01] * 15)
    assert "No difference that matters" in str(
        btl.transferability.verdict(KEY, {"from scratch": base, "transfer": base + noise})
    )


def test_labels_until_a_difference_is_known_not_to_matter():
    """An interval of half width h around d lies within the margin m from N (h / (m - |d|))^2 examples on."""
    base, other = np.zeros(20), np.array([0.11, -0.09] * 10)
    result = btl.transferability.verdict(KEY, {"from scratch": base, "transfer": other}, margin=0.04)
    half = 0.5 * (result.interval[1] - result.interval[0])
    assert "differ by less than 0.04" in result.text
    stated = float(result.text.split("about ")[1].split(" labels")[0])
    assert stated == pytest.approx(20 * (half / 0.03) ** 2, rel=0.05)  # written with two digits


def test_how_many_labels_would_tell():
    """With an interval of half width h around d, N (h / d)^2 examples bring its end to 0."""
    base = np.zeros(20)
    other = np.array([1.0, -0.8] * 10)
    result = btl.transferability.verdict(KEY, {"from scratch": base, "transfer": other})
    half = 0.5 * (result.interval[1] - result.interval[0])
    stated = float(result.text.split("about ")[1].split(" labels")[0])
    assert stated == pytest.approx(20 * (half / 0.1) ** 2, rel=0.05)  # written with two digits


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ({"transfer": [1.0]}, "baseline is 'from scratch'.*holds 'transfer'"),
        ({"from scratch": [1.0]}, "chosen is 'transfer'"),
        ({"from scratch": [1.0, 2.0], "transfer": [1.0]}, "'transfer'.*shape \\(1,\\)"),
        ({"from scratch": [[1.0]], "transfer": [[1.0]]}, "one number per example"),
        ({"from scratch": [0.0], "transfer": [-np.inf]}, "1 non-finite of 1.*clip"),
    ],
)
def test_errors(held_out: dict, message: str):
    with pytest.raises(ValueError, match=message):
        btl.transferability.verdict(KEY, held_out)


def test_other_errors():
    held_out = {"from scratch": [0.0], "transfer": [0.0]}
    with pytest.raises(TypeError, match="random key"):
        btl.transferability.verdict(held_out, held_out)
    with pytest.raises(ValueError, match="at least 100"):
        btl.transferability.verdict(KEY, held_out, num_bootstrap=10)
    with pytest.raises(ValueError, match="smallest difference that matters"):
        btl.transferability.verdict(KEY, held_out, margin=-0.1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        btl.transferability.verdict(KEY, held_out, level=95)
    with pytest.raises(ValueError, match="two candidates"):
        btl.transferability.verdict(KEY, held_out, chosen="from scratch")
    with pytest.raises(TypeError, match="a dict"):
        btl.transferability.verdict(KEY, [0.0])
