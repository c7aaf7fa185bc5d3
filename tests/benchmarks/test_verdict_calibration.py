"""The table of verdicts counts what happened, and a target's answer is known."""

from __future__ import annotations

from typing import Any

from benchmarks.verdict_calibration import LAST_LAYER, TRANSFER, answer, by_last_layer, table


def row(kind: str, outcome: str, on_test: float, judge: str = LAST_LAYER) -> dict[str, Any]:
    return {"judged_by": judge, "kind": kind, "labels": 5, "outcome": outcome, "on_test": on_test}


def test_right_wrong_and_cannot_tell_are_counted():
    rows = [
        row("useful", "helps", 0.3),
        row("useful", "no clear difference", 0.3),
        row("useless", "hurts", 0.01),
        row("useless", "no clear difference", -0.01),
        row("misleading", "helps", -1.0),
        row("misleading", "no clear difference", 0.0, TRANSFER),
    ]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(rows).splitlines()]
    assert lines[2] == ["last layer", "useful", "5", "+0.300", "1", "1", "0", "1", "1", "0"]
    assert lines[3] == ["last layer", "useless", "5", "+0.000", "0", "1", "1", "1", "0", "1"]
    assert lines[4] == ["last layer", "misleading", "5", "-1.000", "1", "0", "0", "0", "0", "1"]
    assert lines[5][4:] == ["2", "2", "1", "2", "1", "2"]
    assert lines[6] == ["transfer", "misleading", "5", "+0.000", "0", "1", "0", "1", "0", "0"]
    assert lines[7][:3] == ["transfer", "all", ""]
    assert len(lines) == 8


def test_a_useful_source_helps():
    result = by_last_layer(0, "useful", 20)
    assert answer(result["on_test"]) == "helps"
    assert result["outcome"] == "helps"
