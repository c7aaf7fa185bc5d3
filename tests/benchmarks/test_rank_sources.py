"""The table of scores: correlations of means over seeds within targets, and what the first choice loses."""

from __future__ import annotations

from benchmarks.rank_sources import table


def test_correlations_and_losses_by_hand():
    rows = []
    for target, offset in (("easy", 0.0), ("hard", -5.0)):
        for seed in (0, 1):
            for place, source in enumerate("abc"):
                # Seeds scatter by more than sources differ, and the same for all; the second score is the wrong way.
                result = offset + 0.1 * place + seed
                scores = {"right": 0.1 * place - seed, "wrong": -0.1 * place}
                key = {"domain": "digits", "target": target, "seed": seed, "source": source}
                rows.append({**key, "test_log_likelihood": result, "scores": scores})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(rows).splitlines()]
    assert lines[0] == ["score", "digits", "all", "its first choice"]
    assert lines[2][1:3] == ["6", "6"]
    right, wrong = lines[3], lines[4]
    assert right[0] == "right"
    assert right[1].startswith("+1.00")
    assert right[3] == "0.000 nats lost"
    assert wrong[1].startswith("-1.00")
    assert wrong[3] == "0.200 nats lost"
