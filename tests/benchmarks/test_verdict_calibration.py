"""The table of verdicts counts what happened, and a target's answer is known."""

from __future__ import annotations

from benchmarks.verdict_calibration import Trial, answer, table, trial


def test_right_wrong_and_cannot_tell_are_counted():
    trials = [
        Trial("useful", 5, "helps", 0.3),
        Trial("useful", 5, "no clear difference", 0.3),
        Trial("useless", 5, "hurts", 0.01),
        Trial("useless", 5, "no clear difference", -0.01),
        Trial("misleading", 5, "helps", -1.0),
    ]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(trials).splitlines()]
    assert lines[2] == ["useful", "5", "+0.300", "1", "1", "0", "1", "1", "0"]
    assert lines[3] == ["useless", "5", "+0.000", "0", "1", "1", "1", "0", "1"]
    assert lines[4] == ["misleading", "5", "-1.000", "1", "0", "0", "0", "0", "1"]
    assert lines[5][3:] == ["2", "2", "1", "2", "1", "2"]


def test_a_useful_source_helps():
    result = trial(0, "useful", 20)
    assert answer(result.on_test) == "helps"
    assert result.outcome == "helps"
