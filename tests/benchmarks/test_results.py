"""The results in the repository: small, and their tables are what their rows say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import active_learning, rank_sources, verdict_calibration
from benchmarks._records import Rows
from benchmarks._speed_table import table
from benchmarks.tasks import (
    cats_vs_dogs_config,
    cats_vs_dogs_report,
    cifar_shift,
    cifar_shift_report,
    control_config,
    control_report,
    control_sequential,
    digits,
    digits_report,
    fewshot,
    fewshot_report,
    posteriors,
    posteriors_report,
    sentiment_config,
    sentiment_minilm_report,
    sentiment_report,
    shift,
    shift_report,
    uci,
    uci_report,
)

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
LARGEST = 1_000_000
FIELD = {"uci": (uci, uci_report), "shift": (shift, shift_report), "fewshot": (fewshot, fewshot_report)}


def with_split(train: int, validation: int, test: int) -> SimpleNamespace:
    """Stands for the pictures, of which a report asks only how many there are."""
    return SimpleNamespace(split=SimpleNamespace(train=range(train), validation=range(validation), test=range(test)))


def rows_of(name: str, tmp_path: Path, settings: dict, file: str = "rows.jsonl") -> Rows:
    # A copy, since reading drops rows of other settings from the file.
    path = tmp_path / "rows.jsonl"
    path.write_text((RESULTS / name / file).read_text())
    rows = Rows(path, settings)
    assert len(rows.rows) == len((RESULTS / name / file).read_text().splitlines())
    return rows


@pytest.mark.parametrize("name", ["digits", "posteriors", "cifar_shift", "cats_vs_dogs", "sentiment", *FIELD])
def test_tables_are_what_the_rows_say(name: str, tmp_path: Path):
    if name == "digits":
        config = digits.Config(seeds=10)
        settings = {k: v for k, v in config._asdict().items() if k not in digits.MAY_GROW}
        report = digits_report.report(config, rows_of(name, tmp_path, settings))
    elif name == "sentiment":
        words = sentiment_config.Config()
        settings = {k: v for k, v in words._asdict().items() if k not in sentiment_config.MAY_GROW}
        report = sentiment_report.report(words, rows_of(name, tmp_path, settings))
        encoder = sentiment_config.EncoderConfig()
        settings = {k: v for k, v in encoder._asdict().items() if k not in sentiment_config.ENCODER_MAY_GROW}
        on_minilm = sentiment_minilm_report.report(encoder, rows_of(name, tmp_path, settings, "minilm.jsonl"))
        report = "\n".join(part for part in (report, on_minilm) if part)
    elif name in FIELD:
        task, reports = FIELD[name]
        settings = {k: v for k, v in task.Config()._asdict().items() if k not in task.MAY_GROW}
        report = reports.report(task.Config(), rows_of(name, tmp_path, settings))
    elif name == "posteriors":
        chosen = posteriors.Config()
        settings = {k: v for k, v in chosen._asdict().items() if k not in ("problems", "methods", "seeds")}
        report = posteriors_report.report(chosen, rows_of(name, tmp_path, settings))
    else:
        task, reports, sizes = {
            "cifar_shift": (cifar_shift, cifar_shift_report, (2000, 200, 2000)),
            "cats_vs_dogs": (cats_vs_dogs_config, cats_vs_dogs_report, (620, 100, 399)),
        }[name]
        config = task.demo(task.Config())
        settings = {k: v for k, v in config._asdict().items() if k not in task.MAY_GROW}
        report = reports.report(config, rows_of(name, tmp_path, settings), with_split(*sizes))
    assert report == (RESULTS / name / "table.md").read_text()


def test_the_tables_of_control_are_what_the_rows_say(tmp_path: Path):
    config = control_config.Config()
    settings = {k: v for k, v in config._asdict().items() if k != "targets"}
    report = control_report.report(config, rows_of("control", tmp_path, settings))
    rows = rows_of("control", tmp_path, settings | control_sequential.settings(), "sequential_rows.jsonl")
    # What follows is the speed of the machine, for which there are no rows.
    assert (
        (RESULTS / "control" / "table.md")
        .read_text()
        .startswith(f"{report}\n{control_sequential.report(config, rows)}")
    )


def test_the_table_of_verdicts_is_what_the_rows_say():
    rows = [json.loads(line) for line in (RESULTS / "verdict" / "rows.jsonl").read_text().splitlines()]
    assert verdict_calibration.table(rows) == (RESULTS / "verdict" / "table.md").read_text()


def test_the_table_of_labels_asked_for_is_what_the_rows_say():
    rows = [json.loads(line) for line in (RESULTS / "active_learning" / "rows.jsonl").read_text().splitlines()]
    assert active_learning.table(rows) == (RESULTS / "active_learning" / "table.md").read_text()


def test_the_table_of_ranks_is_what_the_rows_say():
    rows = [json.loads(line) for line in (RESULTS / "rank_sources" / "rows.jsonl").read_text().splitlines()]
    assert rank_sources.table(rows) == (RESULTS / "rank_sources" / "table.md").read_text()


def test_the_speed_table_is_what_the_rows_say():
    assert table(RESULTS / "speed.jsonl") == (RESULTS / "speed.md").read_text()


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.*")), ids=lambda path: str(path.relative_to(RESULTS)))
def test_results_are_small(path: Path):
    assert path.stat().st_size < LARGEST, f"{path.name}: keep what a table or a figure reads"
