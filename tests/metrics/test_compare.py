import warnings

import numpy as np
import pytest
import scipy.stats

from bayestl import metrics
from bayestl.metrics._compare import holm

SEEDS = 6
RNG = np.random.default_rng(0)
SEED_EFFECT = RNG.normal(size=(SEEDS, 1))
NAMES = [("test", "accuracy"), ("test", "nll"), ("ood/far", "auroc of entropy"), ("test", "interval_coverage")]
SCORES = {
    "scratch": SEED_EFFECT + 0.1 * RNG.normal(size=(SEEDS, 4)),
    "transfer": SEED_EFFECT + 0.1 * RNG.normal(size=(SEEDS, 4)) + [0.5, 0.5, 0.02, 0.0],
    "other": SEED_EFFECT + 0.1 * RNG.normal(size=(SEEDS, 4)) - [0.5, 0.5, 0.0, 0.0],
}


def tables(scores, names=NAMES):
    made = []
    for row in scores:
        named = zip(names, row.tolist(), strict=True)
        made.append(metrics.ScoreTable(tuple(metrics.Score(place[0], place[1], value, 0.1) for place, value in named)))
    return made


TABLES = {method: tables(scores) for method, scores in SCORES.items()}


def one_metric(values, base, name=("test", "nll")):
    column = {"new": np.array(values)[:, None], "old": np.array(base)[:, None]}
    return {method: tables(scores, [name]) for method, scores in column.items()}


def test_differences_are_those_of_the_paired_t_test():
    made = metrics.compare(TABLES, baseline="scratch")
    assert [each[:3] for each in made.differences] == [(m, *n) for m in ("transfer", "other") for n in NAMES[:3]]
    for each in made.differences:
        column = NAMES.index((each.dataset, each.metric))
        expected = scipy.stats.ttest_rel(SCORES[each.method][:, column], SCORES["scratch"][:, column])
        assert each.p_value == pytest.approx(expected.pvalue, rel=1e-9)
        assert each.difference / each.standard_error == pytest.approx(expected.statistic, rel=1e-9)


def test_holm_by_hand():
    """Four p values: .01 times 4, .02 times 3, .03 times 2, .04 as the one before it since it must not be smaller."""
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.04, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.4, 0.9])), [0.8, 0.9])
    np.testing.assert_allclose(holm(np.array([0.9, 0.9])), [1.0, 1.0])


def test_all_comparisons_of_the_table_are_corrected_for():
    made = metrics.compare(TABLES, baseline="scratch")
    smallest = min(made.differences, key=lambda each: each.p_value)
    assert smallest.corrected == pytest.approx(6 * smallest.p_value)
    alone = metrics.compare(TABLES, baseline="scratch", metrics=["nll"])
    assert len(alone.differences) == 2
    smallest = min(alone.differences, key=lambda each: each.p_value)
    assert smallest.corrected == pytest.approx(2 * smallest.p_value)


def test_verdicts_know_which_direction_is_better():
    made = metrics.compare(TABLES, baseline="scratch")
    outcomes = {each[:3]: each.verdict for each in made.differences}
    assert outcomes["transfer", "test", "accuracy"] == outcomes["other", "test", "nll"] == "better"
    assert outcomes["transfer", "test", "nll"] == outcomes["other", "test", "accuracy"] == "worse"
    assert outcomes["transfer", "ood/far", "auroc of entropy"] == "no clear difference"
    ranked = metrics.compare(TABLES, baseline="scratch", metrics=["auroc"])
    assert {each.metric for each in ranked.differences} == {"auroc of entropy"}
    direction = {"interval_coverage": True}
    assert len(metrics.compare(TABLES, baseline="scratch", larger_is_better=direction).differences) == 8


def test_chance_makes_few_verdicts_in_a_whole_table():
    """Of tables without any difference, at most 5% may hold a verdict: Holm's promise, under independent scores."""
    rng = np.random.default_rng(1)
    names = [("test", "nll")] + [(f"shift/{number}", "nll") for number in range(4)]
    wrong = 0
    for _ in range(100):
        pair = {method: tables(rng.normal(size=(5, 5)), names) for method in ("a", "b")}
        wrong += any(each.verdict != "no clear difference" for each in metrics.compare(pair, baseline="a").differences)
    assert scipy.stats.binomtest(wrong, 100, 0.05).pvalue > 1e-3


def test_differences_without_spread():
    same = one_metric([0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert metrics.compare(same, baseline="old").differences[0][3:] == (0.0, 0.0, 1.0, 1.0, "no clear difference")
    # 0.1 less each, but for rounding.
    less = one_metric([0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.3, 0.4, 0.5, 0.6])
    assert metrics.compare(less, baseline="old").differences[0][5:] == (0.0, 0.0, "better")


def test_few_seeds_are_warned_of():
    with pytest.warns(RuntimeWarning, match="4 seeds show large differences alone; compare at least 5"):
        metrics.compare({method: own[:4] for method, own in TABLES.items()}, baseline="other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.compare({method: own[:5] for method, own in TABLES.items()}, baseline="other")


def test_tables_for_papers():
    made = metrics.compare(TABLES, baseline="scratch")
    each = made["transfer", "test", "nll"]
    assert str(made).splitlines()[3] == (
        f"| transfer | test | nll | {each.difference:+.3f} ± {each.standard_error:.3f} | {each.corrected:.2g} | worse |"
    )
    latex = made.to_latex(2).splitlines()
    assert latex[0] == r"\begin{tabular}{lllrrl}"
    assert latex[5].startswith(f"transfer & test & nll & {each.difference:+.2f} $\\pm$ ")
    frame = pytest.importorskip("pandas").DataFrame(list(made.differences))
    assert made.to_dataframe().equals(frame)
    with pytest.raises(KeyError, match="there are methods"):
        made["scratch", "test", "nll"]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="give the baseline, 'none', and a method"):
        metrics.compare(TABLES, baseline="none")
    with pytest.raises(ValueError, match=r"holds \{'scratch': 6, 'other': 5\} seeds"):
        metrics.compare({"scratch": TABLES["scratch"], "other": TABLES["other"][:5]}, baseline="scratch")
    with pytest.raises(ValueError, match=r"tables\['new'\] has other scores"):
        metrics.compare({**one_metric([1.0, 2.0], [1.0, 2.0]), "old": TABLES["other"][:2]}, baseline="old")
    with pytest.raises(ValueError, match=r"metrics \['crps'\] are not in the tables"):
        metrics.compare(TABLES, baseline="scratch", metrics=["crps"])
    with pytest.raises(ValueError, match="is more speed better"):
        metrics.compare(one_metric([1.0] * 5, [2.0] * 5, ("test", "speed")), baseline="old")
    with pytest.raises(ValueError, match="are not finite"):
        metrics.compare(one_metric([np.inf] * 5, [2.0] * 5), baseline="old")
    with pytest.raises(TypeError, match=r"tables\['new'\] must be a list of what metrics\.evaluate returns"):
        metrics.compare({"new": [1.0], "old": [1.0]}, baseline="old")  # pyright: ignore[reportArgumentType]
