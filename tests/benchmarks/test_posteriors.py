"""The comparison with NUTS, in small: every method gives a row, and distances are what they say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from benchmarks._records import Rows
from benchmarks.tasks import posteriors as task
from benchmarks.tasks import posteriors_problems as problems
from benchmarks.tasks import posteriors_report as reports

SMALL = task.Config(
    seeds=1, steps=100, chain_steps=1000, nuts_warmup=3, nuts_samples=3, nuts_chains=1, methods=("MAP", "SGLD")
)


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setattr(problems, "SOURCE_STEPS", 1400)
    monkeypatch.setattr(task, "DRAWS", 10)


@pytest.mark.usefixtures("_short")
def test_run_resume_and_report(data_dir, tmp_path, capsys):
    rows = Rows(tmp_path / "rows.jsonl", {})
    task.run(SMALL, rows, data_dir, progress=False)
    found = {(row["problem"], row["method"]): row for row in rows.rows}
    assert set(found) == {(p, m) for p in ("yacht", "moons") for m in (task.NUTS, "MAP", "SGLD")}
    assert found["yacht", task.NUTS]["total_variation"] == 0
    assert found["moons", task.NUTS]["agreement"] == 1
    assert found["yacht", "MAP"]["parameters"] == 6 * 32 + 32 + 32 + 1
    assert found["moons", "MAP"]["parameters"] == 2 * 16 + 16 + 16 * 16 + 16 + 16 * 2 + 2
    assert found["moons", "SGLD"]["settings_tried"] == 3
    assert all(np.isfinite(row["nll"]) and 0 <= row["total_variation"] <= 1 for row in rows.rows)
    capsys.readouterr()
    task.run(SMALL, rows, data_dir, progress=False)
    assert capsys.readouterr().out == ""
    table = reports.report(SMALL, rows)
    assert table.count("| SGLD |") == 2


def test_total_variation_of_normals():
    """Two normals a distance d apart: 2 Phi(d / 2) - 1."""
    joint = btl.LogJoint(btl.nets.mlp(jax.random.key(0), (1, 1)), btl.likelihoods.normal(0.5), None, num_data=1)
    grid = np.linspace(-5, 5, 2001, dtype=np.float32)
    inputs, targets = jnp.zeros((3, 1)), jnp.zeros((3, 1))
    problem = problems.Problem("", joint, joint, None, None, (inputs, targets), (inputs, targets), grid)

    def at(mean):
        def predict(x):
            return btl.predict.Predictive(jnp.full((1, 3, 1), mean), joint.likelihood, jnp.zeros(1))

        return predict

    expected = 2 * jax.scipy.stats.norm.cdf(1.0) - 1  # d is two standard deviations
    assert task.total_variation(problem, at(0.0), at(1.0)) == pytest.approx(float(expected), abs=1e-3)
    assert task.agreement(problem, at(0.0), at(1.0)) is None


@pytest.mark.usefixtures("_short")
def test_problems_keep_their_parts_apart(data_dir):
    problem = problems.yacht(0, data_dir)
    parts = [np.asarray(problem.train.inputs), np.asarray(problem.validation[0]), np.asarray(problem.test[0])]
    rows = np.concatenate(parts)
    assert [len(part) for part in parts[:2]] == [40, 40]
    assert len(np.unique(rows, axis=0)) == len(rows)
