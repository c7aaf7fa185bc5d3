"""The task with shifted CIFAR-10, in small."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tuning import run_fixed
from benchmarks.tasks import cifar_shift as task
from benchmarks.tasks import cifar_shift_report as reports

METHODS = (task.SOURCE_AS_IS, task.TEMPERATURE, task.BOTH, task.FISHER)
SMALL = task.Config(
    methods=METHODS,
    num_labels=(1,),
    seeds=2,
    steps=2,
    blocks=1,
    scales=(0.01, 0.03),
    rates=(0.01,),
    pool_per_class=2,
    validation_per_class=2,
    test_per_class=4,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.mark.slow  # tests/pretrained holds the same network to the same numbers
def test_the_source_on_every_fifth_picture(data_dir, cache):
    # The fact of the published network: accuracy .8045 and NLL .887 on these 2000 pictures.
    config = SMALL._replace(test_per_class=None)
    shown = task.pictures(config, data_dir, cache)
    assert [len(part) for part in shown.split] == [20, 20, 2000]
    assert len(np.unique(np.concatenate(shown.split))) == 2040
    body, tail = task.source(config, data_dir)
    seen = task.views(shown, body, tail)
    for view, net in ((seen.maps, tail), (seen.features, tail.split("pool")[1])):
        (row,) = run_fixed(btl.nets.from_nnx(net), btl.likelihoods.categorical(), view, seeds=1)
        assert round(row["accuracy"], 4) == 0.8045
        assert row["nll"] == pytest.approx(0.887, abs=1e-3)


def test_run_resume_and_report(data_dir, cache, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    first = Rows(path, {})
    task.run(SMALL._replace(methods=METHODS[:2]), first, data_dir, cache, progress=False)
    before = path.read_text()
    rows = Rows(path, {})
    shown = task.run(SMALL, rows, data_dir, cache, progress=False)
    assert path.read_text().startswith(before)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["method"], row["seed"]) for row in found] == [(m, seed) for m in METHODS for seed in (0, 1)]
    for row in found:
        assert np.isfinite(row["nll"])
        assert "probs" not in row  # 120 kB a row, which nothing reads
        assert row["settings_tried"] == (0 if row["method"] == task.SOURCE_AS_IS else 2)
        assert str(data_dir) not in json.dumps(row)
    policies = {row["method"]: row["state_policy"] for row in found}
    assert policies[task.FISHER] == policies[task.BOTH] == "frozen"
    assert policies[task.TEMPERATURE] == "none"
    # With every row there, nothing is run again.
    capsys.readouterr()
    task.run(SMALL, rows, data_dir, cache, progress=False)
    assert capsys.readouterr().out == ""
    table = reports.report(SMALL, rows, shown)
    assert all(f"| {method} |" in table for method in METHODS)
    reports.figures(SMALL, rows, shown, tmp_path)
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_bad_configurations():
    with pytest.raises(SystemExit, match=r"--methods has 'magic'; there are .*'source as it is'"):
        task.checked(task.Config(methods=("magic",)))
    with pytest.raises(SystemExit, match="--n has 999; give labels per class from 1 to 200"):
        task.checked(task.Config(num_labels=(999,)))
    with pytest.raises(SystemExit, match="--seeds is 0; give at least 1"):
        task.checked(task.Config(seeds=0))
