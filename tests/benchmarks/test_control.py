"""Policies on CartPole, in small: every method gives a row, and choices see other targets alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks._records import Rows
from benchmarks.run import main
from benchmarks.tasks import control as task
from benchmarks.tasks import control_config as names
from benchmarks.tasks import control_demo as demo
from benchmarks.tasks import control_report as reports
from benchmarks.tasks import control_sequential as sequential

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SMALL = names.Config(
    targets=("weak", "swapped"),
    seeds=2,
    rollouts=1,
    num_envs=2,
    num_steps=8,
    scales=(0.1, 1.0),
    factors=(1.0,),
    strengths=(10.0,),
    temperatures=(0.5,),
    rates=(0.003,),
    passes=(1,),
    episodes=4,
)


@pytest.mark.slow
def test_run_resume_and_report(data_dir, tmp_path, capsys):
    rows = Rows(tmp_path / "rows.jsonl", {})
    task.run(SMALL, rows, data_dir)
    made = {(row["target"], row["method"]) for row in rows.rows}
    assert made >= {(t, m) for t in SMALL.targets for m in names.METHODS}
    curves = [row["curve"] for row in rows.rows if "curve" in row]
    assert all(len(curve) == 2 and min(curve) > 0 and max(curve) <= 500 for curve in curves)
    capsys.readouterr()
    task.run(SMALL, rows, data_dir)
    assert capsys.readouterr().out == ""
    assert reports.report(SMALL, rows).count(f"| {names.CHOSEN} |") == 2


@pytest.mark.slow
def test_the_last_posterior_as_prior_runs_and_reports(data_dir, tmp_path):
    rows = Rows(tmp_path / "rows.jsonl", {})
    config = SMALL._replace(rollouts=3)
    sequential.run(config, rows, data_dir, names.Shared(0.5, 0.003, 1))
    text = sequential.report(config, rows)
    assert text.count(f"| {sequential.SEQUENTIAL} |") == 2


def row(target, method, seed, setting, curve, **others):
    area = task.area(np.array(curve))
    return dict(target=target, method=method, seed=seed, setting=setting, curve=curve, area=area, seconds=1.0, **others)


def test_a_scale_is_chosen_on_the_other_targets_and_a_start_by_first_returns(tmp_path):
    rows = Rows(tmp_path / "rows.jsonl", {})
    # On the target itself the scale 1 is far better; the other target says 0.1.
    for seed in (0, 1):
        rows.add(
            [
                row("weak", names.L2_SP, seed, 0.1, [10.0, 20.0, 30.0]),
                row("weak", names.L2_SP, seed, 1.0, [10.0, 90.0, 90.0]),
                row("swapped", names.L2_SP, seed, 0.1, [5.0, 50.0, 50.0]),
                row("swapped", names.L2_SP, seed, 1.0, [5.0, 6.0, 7.0]),
                row("weak", names.SCRATCH, seed, 0.0, [2.0, 4.0, 8.0]),
                {"target": "weak", "method": names.CHOSEN, "seed": seed, "choice": (names.L2_SP, names.SCRATCH)[seed]},
            ]
        )
    curves, setting = reports.curves(SMALL, rows, "weak", names.L2_SP)
    assert setting == 0.1
    np.testing.assert_array_equal(curves, [[10, 20, 30]] * 2)
    assert reports.curves(SMALL, rows, "swapped", names.L2_SP)[1] == 1.0
    # One rollout later, after one in which both starts were played.
    np.testing.assert_array_equal(reports.curves(SMALL, rows, "weak", names.CHOSEN)[0], [[6, 10, 20], [6, 2, 4]])


def test_the_short_version_takes_what_the_full_run_chose_elsewhere():
    config = names.Config()
    rows, chosen, pairs = demo.choices(RESULTS / "control")
    assert set(chosen.settings) == {(t, m) for t in names.TARGETS for m in names.RUN}
    assert chosen.settings["swapped", names.L2_SP] in config.scales
    on_others = {
        scale: np.mean([r["area"] for r in rows.rows if r["method"] == names.L2_SP and r["setting"] == scale
                        and r["target"] != "long"])
        for scale in config.scales
    }  # fmt: skip
    assert chosen.settings["long", names.L2_SP] == max(on_others, key=lambda scale: on_others[scale])
    assert pairs["long", sequential.SEQUENTIAL] in sequential.grid_of(sequential.SEQUENTIAL)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--targets", "long"], "names one target, and its settings are chosen on others"),
        (["--targets", "moon"], "moon"),
    ],
)
def test_targets_that_cannot_be_run_are_refused(words, message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmarks.run", "control", *words])
    with pytest.raises(SystemExit, match=message):
        main()


def test_area_of_a_curve():
    assert task.area(np.array([0.0, 10.0, 10.0])) == 7.5


def test_more_seeds_than_runs_are_refused(data_dir):
    with pytest.raises(SystemExit, match="there are 6 runs of the source"):
        task.source(data_dir, 7)
