"""The tables of few labels and of corrupted pictures, in small, on features that are made up."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import in_words
from benchmarks.tasks import cifar_features as pictures
from benchmarks.tasks import fewshot, fewshot_report, shift, shift_report

SETTINGS = {"num_labels": (10,), "seeds": 2, "scales": (0.1, 1.0), "steps": 3, "per_class": (3, 3, 3)}
FEWSHOT = fewshot.Config(**SETTINGS)
SHIFT = shift.Config(**SETTINGS, rates=(0.01, 0.1), severities=(3,))


def examples(seed: int) -> btl.data.ArrayData:
    """Ten classes around ten corners, three examples of each."""
    labels = np.repeat(np.arange(10), 3)
    noise = np.random.default_rng(seed).normal(0, 0.3, (30, 10))
    return btl.data.arrays((np.eye(10)[labels] + noise).astype(np.float32), labels)


@pytest.fixture
def made_up(monkeypatch):
    """Features in place of those of the published network."""
    monkeypatch.setattr(pictures, "SOURCE_STEPS", 30)
    monkeypatch.setattr(pictures, "EVERY", 2)
    monkeypatch.setattr(pictures, "RANK", 3)
    head = btl.nets.mlp(jax.random.key(0), (10, 10))
    names = [pictures.name_of(name, severity) for name in shift.CORRUPTIONS for severity in SHIFT.severities]
    tests = {name: examples(number) for number, name in enumerate((pictures.CLEAN, *names))}
    made = pictures.Features(examples(7), examples(8), tests, head)
    monkeypatch.setattr(pictures, "features", lambda *args, **options: made)
    return made


def test_learned_priors_have_the_average_variance_that_they_are_asked_for(made_up):
    for name, prior in fewshot.priors(made_up).items():
        variances = np.concatenate([np.ravel(np.broadcast_to(x, (1,)) if x.ndim == 0 else x)
                                    for x in jax.tree.leaves(prior(jnp.float32(0.2)).variance)])  # fmt: skip
        assert variances.mean() == pytest.approx(0.04, rel=1e-3), name
    means = {name: prior.gaussian.mean for name, prior in fewshot.priors(made_up).items()}
    assert all(bool(jnp.all(x == 0)) for x in jax.tree.leaves(means[fewshot.ZERO_MEAN]))
    same = jax.tree.map(np.array_equal, means[fewshot.ITERATES], means[fewshot.LOW_RANK])
    assert all(jax.tree.leaves(same))
    for name in (fewshot.ISOTROPIC, fewshot.DIAGONAL):
        assert all(map(np.array_equal, jax.tree.leaves(means[name]), jax.tree.leaves(made_up.head.params)))


def test_held_out_labels_are_not_fitted(made_up):
    labels = fewshot.labelled(made_up, 20, [0, 1])
    for train, (fitted, held_out) in zip(labels.train, labels.places, strict=True):
        assert np.bincount(np.asarray(train.targets)).tolist() == [2] * 10
        assert sorted([*fitted, *held_out]) == list(range(20))
        assert len(held_out) == 4


@pytest.fixture
def few(monkeypatch):
    """Two priors, one without and one with a shape: each compiles programs of its own."""
    priors = (fewshot.ISOTROPIC, fewshot.DIAGONAL)
    monkeypatch.setattr(fewshot, "METHODS", (fewshot.SOURCE_AS_IS, *priors))
    monkeypatch.setattr(fewshot_report, "METHODS", (fewshot.SOURCE_AS_IS, *priors))
    monkeypatch.setattr(fewshot_report, "PRIORS", priors)
    monkeypatch.setattr(fewshot_report, "ZERO_MEAN", fewshot.DIAGONAL)
    monkeypatch.setattr(fewshot_report, "ITERATES", fewshot.ISOTROPIC)
    methods = (shift.INITIALISATION, fewshot.ISOTROPIC, fewshot.ISOTROPIC + shift.POSTERIOR)
    monkeypatch.setattr(shift, "PRIORS", (fewshot.ISOTROPIC,))
    monkeypatch.setattr(shift_report, "METHODS", (shift.SOURCE_AS_IS, *methods))
    return monkeypatch


def test_fewshot(made_up, few, tmp_path, capsys):
    few.setattr(fewshot, "priors", lambda features: {
        fewshot.ISOTROPIC: pictures.around(features.head.params),
        fewshot.DIAGONAL: pictures.from_laplace(features.head, features.source),
    })  # fmt: skip
    rows = Rows(tmp_path / "rows.jsonl", {})
    fewshot.run(FEWSHOT, rows, tmp_path, tmp_path)
    assert [(row["method"], row["seed"]) for row in rows.rows] == [(m, s) for m in fewshot.METHODS for s in (0, 1)]
    assert all(np.isfinite(row["nll"]) and row["gradient_steps"] in (0, 9) for row in rows.rows)
    capsys.readouterr()
    fewshot.run(FEWSHOT, rows, tmp_path, tmp_path)
    assert capsys.readouterr().out == ""
    table = fewshot_report.report(FEWSHOT, rows)
    assert table.count("\n| 10 |") == 3
    assert "*0.262 ± 0.032*" in table  # the citation, an error of 73.8 ± 3.2 %
    means = {m: np.mean([row["nll"] for row in rows.rows if row["method"] == m]) for m in fewshot.METHODS}
    best = min(means, key=lambda method: means[method])
    assert f"- lowest NLL, n = 10: {best} ({means[best]:.3f})." in table
    assert all(method in table for method in fewshot.METHODS)


def test_shift(made_up, few, tmp_path, capsys):
    few.setattr(shift, "priors", lambda features: {fewshot.ISOTROPIC: pictures.around(features.head.params)})
    rows = Rows(tmp_path / "rows.jsonl", {})
    shift.run(SHIFT, rows, tmp_path, tmp_path)
    methods = shift_report.METHODS
    assert {(row["method"], row["seed"]) for row in rows.rows} == {(m, s) for m in methods for s in (0, 1)}
    assert len(rows.rows) == 2 * len(methods)
    assert all(list(row["scores"]) == ["test", "shift/severity-3"] for row in rows.rows)
    capsys.readouterr()
    shift.run(SHIFT, rows, tmp_path, tmp_path)
    assert capsys.readouterr().out == ""
    table = shift_report.report(SHIFT, rows)
    assert all(table.count(f"| {method} |") >= 3 for method in methods)
    nll = {
        (row["method"], row["seed"]): row["scores"]["shift/severity-3"]["nll"] for row in rows.rows
    }  # fmt: skip
    apart = [nll[fewshot.ISOTROPIC + shift.POSTERIOR, seed] - nll[fewshot.ISOTROPIC, seed] for seed in (0, 1)]
    against_mode = table[table.index("### Does the average pay?") :]
    assert f"| {fewshot.ISOTROPIC} | shift/severity-3 | nll | {np.mean(apart):+.3f} ± " in against_mode


def test_verdicts_in_words():
    difference = partial(btl.metrics.Difference, metric="nll", difference=0.0, standard_error=0.0, p_value=0.0,
                         corrected=0.0)  # fmt: skip
    differences = (
        difference("one", "test", verdict="better"),
        difference("one", "shift/severity-3", verdict="better"),
        difference("two", "test", verdict="no clear difference"),
        difference("two", "shift/severity-3", verdict="worse"),
    )
    lines = in_words(btl.metrics.Comparison(differences, "base", 5, 0.95), "{} than base")
    assert lines == ["- better than base: one (all).", "- worse than base: two (severity 3)."]
    single = btl.metrics.Comparison(differences[::2], "base", 5, 0.95)
    assert in_words(single, "{} than base") == ["- better than base: one.", "- worse than base: none."]


def test_the_corruptions_of_a_severity_are_together(made_up):
    sets = shift.test_sets(made_up, (3,))
    together = np.asarray(sets["shift/severity-3"].inputs)
    each = [np.asarray(made_up.tests[pictures.name_of(name, 3)].inputs) for name in shift.CORRUPTIONS]
    np.testing.assert_array_equal(together, np.concatenate(each))


def test_bad_configurations():
    for task in (fewshot, shift):
        with pytest.raises(SystemExit, match="--n has 15; give labels in all, a multiple of 10 up to 1500"):
            task.checked(task.Config(num_labels=(15,)))
        with pytest.raises(SystemExit, match="--seeds is 0; give at least 1"):
            task.checked(task.Config(seeds=0))
