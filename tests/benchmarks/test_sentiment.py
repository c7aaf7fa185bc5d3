"""The task with sentences, in small: files of the same layout whose words say what the label is."""

from __future__ import annotations

import gzip
from pathlib import Path

import jax
import numpy as np
import pytest

import bayestl as btl
from benchmarks._records import Rows
from benchmarks.tasks import sentiment as task
from benchmarks.tasks import sentiment_cnn, sentiment_data, sentiment_words
from benchmarks.tasks import sentiment_config as names
from benchmarks.tasks import sentiment_report as reports

CONFIG = names.Config(
    num_labels=(20,),
    seeds=2,
    steps=60,
    scales=(0.1, 1.0),
    rates=(0.1, 0.5),
    transfer_at=(),
    cnn_at=(20,),
    source_steps=100,
)


def words(label: int) -> list[str]:
    return [f"w{label}x{i}" for i in range(20)]


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    """1300 sentences of 4 words each, of which 2 or 3 belong to their class; random word vectors."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "text").mkdir()
    (folder / "vectors").mkdir()
    for path, classes in ((names.SOURCE, 2), *names.TARGETS.values()):
        lines = []
        for number in range(1300):
            label = number % classes
            own = rng.choice(words(label), 3).tolist()
            lines.append(f"{label} {' '.join([*own, *rng.choice(words(int(rng.integers(classes))), 1)])}\n")
        (folder / path).write_text("".join(lines))
    with gzip.open(folder / names.VECTORS, "wt") as file:
        for label in range(6):
            for word in words(label):
                file.write(" ".join([word, *(f"{x:.3f}" for x in rng.normal(size=50))]) + "\n")
    return folder


@pytest.mark.slow
def test_a_small_run(data_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sentiment_cnn, "CNN_STEPS", 5)
    monkeypatch.setattr(task, "CNN_SOURCE_STEPS", 10)
    rows = Rows(tmp_path / "rows.jsonl", {})
    task.run(CONFIG, rows, data_folder, progress=False)
    assert {row["method"] for row in rows.rows if row["target"] == "custrev"} == {
        *names.TUNED,
        names.AS_IS,
        names.CNN_TRANSFER,
    }
    assert {row["method"] for row in rows.rows if row["target"] == "TREC"} == {*names.TUNED, names.CNN_TRANSFER}
    assert all(np.isfinite(row["nll"]) and row["frozen_members"] == 0 for row in rows.rows)

    def nll(method: str) -> float:
        return float(np.mean([r["nll"] for r in rows.rows if (r["method"], r["target"]) == (method, "custrev")]))

    # Source and target are the same task here, so that the source as it is beats 20 labels.
    assert nll(names.AS_IS) < nll(names.SCRATCH)
    assert nll(f"rt-polarity, {names.L2_SP}") < nll(names.SCRATCH)
    report = reports.report(CONFIG, rows)
    assert "### TREC, 20 labels" in report
    reports.figure(CONFIG, rows, tmp_path / "figure.png")
    before = len(rows.rows)
    task.run(CONFIG, rows, tmp_path / "no data here", progress=False)  # nothing is missing
    assert len(rows.rows) == before


def test_frozen_is_a_table_that_stays_and_flat_one_that_does_not(data_folder):
    """All methods are one program: what tells them apart is the prior, whose limits are freezing and no prior."""
    target = sentiment_data.sentences("custrev", data_folder / names.TARGETS["custrev"][0], 2)
    vectors = btl.pretrained.read_vectors(data_folder / names.VECTORS)
    sources = [sentiment_words.from_vectors(target, vectors), sentiment_words.from_vectors(target, vectors)]
    make = sentiment_words.program(CONFIG, target, sources, 20)
    grids = {method.name: method.grid for method in sentiment_words.tuned_methods(CONFIG, sources)}
    assert tuple(grids) == (names.SCRATCH, *(f"GloVe, {how}" for how in names.HOWS))
    table = sources[0].params["embedding"]["table"]
    for how, moves in ((names.FROZEN, False), (names.INITIALISATION, True)):
        method = make({name: values[1] for name, values in grids[f"GloVe, {how}"].items()})
        train = sentiment_data.training_set(target, 20, seed=0)
        fitted = btl.fit(jax.random.key(0), method, sources[0].params, train, steps=60, batch_size=20, progress=False)
        moved = np.abs(np.asarray(fitted.params["embedding"]["table"] - table)).max()
        assert (moved > 1e-2) if moves else (moved < 1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("SST",)}, "SST, which shares 82% of its sentences with rt-polarity.*there are custrev, TREC"),
        ({"targets": ("SUBJ",)}, "SUBJ, which shares 42%"),
        ({"targets": ("imdb",)}, "'imdb'; there are custrev, TREC"),
        ({"seeds": 0}, "--seeds must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(SystemExit, match=message):
        names.checked(names.Config()._replace(**changes))
