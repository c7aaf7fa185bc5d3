"""The standard regressions, in small: scales, units and rows are what they say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from benchmarks._records import Rows
from benchmarks.tasks import uci, uci_data, uci_methods, uci_report

all_searches = uci.searches
SMALL = uci.Config(datasets=("yacht",), seeds=2, scales=(0.3, 1.0), steps=4)


def test_splits_are_the_published_ones(data_dir):
    (split,) = uci_data.splits("concrete", data_dir, [0])
    assert (len(split.train.targets), len(split.test.targets)) == (927, 103)
    assert len(split.fitted) + len(split.held_out) == 927
    assert not set(split.fitted) & set(split.held_out)
    np.testing.assert_allclose(split.train.inputs.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(split.train.targets.std(), 1, atol=1e-5)
    folder = data_dir / "uci" / "concrete"
    rows = np.loadtxt(folder / "index_test_0.txt").astype(int)
    original = np.loadtxt(folder / "data.txt")[rows, 8]
    # The scale is that of the training part; differences on the test part give it back.
    np.testing.assert_allclose(np.diff(split.test.targets[:, 0]) * split.unit, np.diff(original), atol=1e-3)


def test_scores_are_in_the_original_unit():
    """A standard normal on scaled targets is N(0, unit^2) on the original ones."""
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(50, 1)).astype(np.float32)
    part = uci_data.Examples(np.zeros((50, 1), np.float32), targets)
    split = uci_data.Split(part, np.arange(40), np.arange(40, 50), part, 3.0)

    def predict(inputs):
        return btl.predict.Predictive(jnp.zeros((1, 50, 1)), btl.likelihoods.normal(1.0), jnp.zeros(1))

    row = uci.row(split, uci_methods.Outcome("any", predict, {}, None, 0, 0.0))
    y = 3.0 * targets.astype(np.float64)
    assert row["nll"] == pytest.approx(np.mean(0.5 * np.log(2 * np.pi * 9) + y**2 / 18), rel=1e-5)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean(y**2)), rel=1e-5)
    assert row["interval_coverage"] == pytest.approx(np.mean(np.abs(targets) < 1.6449))


def test_hyperparameters_raise_the_evidence():
    """Steps towards the fixed points of MacKay raise the evidence, and stay where it is largest."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(40, 2)).astype(np.float32)
    targets = (inputs @ np.array([[1.0], [-0.5]]) + 0.3 * rng.normal(size=(40, 1))).astype(np.float32)
    part = uci_data.Examples(inputs, targets)
    split = uci_data.Split(part, np.arange(30), np.arange(30, 40), part, 1.0)
    net = uci_methods.network(jax.random.key(0), 2)
    logs = {name: jnp.float32(np.log(0.5)) for name in ("hidden", "head", "noise")}
    joint = uci_methods.with_hyperparameters(net, 40, logs)
    data = btl.data.arrays(*part)
    fitted = btl.fit(
        jax.random.key(1), uci_methods.map_by_adam(joint, None, 300), net.params, data, steps=300, progress=False
    )

    def evidence(logs):
        joint = uci_methods.with_hyperparameters(net, 40, logs)
        return float(btl.infer.log_evidence(jax.random.key(0), joint, fitted.params, data))

    climbed = uci_methods._climbed(net, split, logs, fitted.params)
    assert evidence(climbed) > evidence(logs) + 1


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setattr(uci_methods, "MEMBERS", 2)
    monkeypatch.setattr(uci_methods, "RANK", 2)
    monkeypatch.setattr(uci_methods, "FIXED_POINT_STEPS", 1)


@pytest.mark.usefixtures("_short")
def test_run_resume_and_report(data_dir, tmp_path, capsys, monkeypatch):
    config, families = SMALL._replace(seeds=1), uci_methods.FAMILIES
    monkeypatch.setattr(uci, "searches", lambda config: all_searches(config)[:1])
    monkeypatch.setattr(uci_report, "METHODS", families[0].names)
    monkeypatch.setattr(uci_report, "LAPLACE", uci_methods.MAP)
    rows = Rows(tmp_path / "rows.jsonl", {})
    uci.run(config, rows, data_dir)
    assert [(row["method"], row["seed"]) for row in rows.rows] == [(m, 0) for m in families[0].names]
    assert all(np.isfinite([row["nll"], row["rmse"], row["crps"]]).all() for row in rows.rows)
    # Two scales and one more run; the ensemble has two more.
    assert [row["gradient_steps"] for row in rows.rows] == [12, 16]
    capsys.readouterr()
    uci.run(config, rows, data_dir)
    assert capsys.readouterr().out == ""
    table = uci_report.report(config, rows)
    assert table.count("*published:*") == 4
    assert all(f"| {name} |" in table for name in families[0].names)


@pytest.mark.slow  # compiles every method
@pytest.mark.usefixtures("_short")
def test_all_methods(data_dir, tmp_path):
    rows = Rows(tmp_path / "rows.jsonl", {})
    uci.run(SMALL, rows, data_dir)
    assert {(row["method"], row["seed"]) for row in rows.rows} == {(m, n) for m in uci_methods.METHODS for n in (0, 1)}
    assert all(np.isfinite([row["nll"], row["rmse"], row["crps"]]).all() for row in rows.rows)
    table = uci_report.report(SMALL, rows)
    assert all(f"| {name} |" in table for name in uci_methods.METHODS)


def test_bad_configurations():
    with pytest.raises(SystemExit, match="--datasets has boston; there are concrete"):
        uci.checked(uci.Config(datasets=("boston",)))
    with pytest.raises(SystemExit, match="--seeds is 9; there are 5 splits"):
        uci.checked(uci.Config(seeds=9))
