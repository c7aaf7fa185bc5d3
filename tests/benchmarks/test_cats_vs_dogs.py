"""The task with cats and dogs, in small."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from benchmarks import _records, run
from benchmarks._fisher import fisher_diagonal, fisher_prior
from benchmarks._published import NETWORKS, published
from benchmarks._records import Rows
from benchmarks.tasks import cats_vs_dogs as task
from benchmarks.tasks import cats_vs_dogs_config as names
from benchmarks.tasks import cats_vs_dogs_nets as nets
from benchmarks.tasks import cats_vs_dogs_report as reports
from benchmarks.tasks import cats_vs_dogs_source as sources

METHODS = (names.FROZEN, names.RECIPE, names.L2_SP)
SMALL = names.Config(
    methods=METHODS,
    dense_methods=(names.FROZEN,),
    num_labels=(4,),
    dense_at=(4,),
    recipe_at=(4,),
    seeds=1,
    steps=2,
    copies=2,
    scales=(0.003, 0.01),
    rates=(0.01,),
    recipe_steps=1,
    size=64,
    pool_per_class=3,
    validation_per_class=3,
    per_class=12,
)


def test_fisher_of_a_linear_classifier():
    # E_y[(d log p(y | x) / d b_c)^2] = p_c (1 - p_c) for the bias of a softmax; averaged over the pictures.
    net = btl.nets.mlp(jax.random.key(0), (3, 2))
    net = dataclasses.replace(
        net, params={"head": {"kernel": net.params["head"]["kernel"], "bias": jnp.array([1.0, 0.0])}}
    )
    inputs = np.random.default_rng(0).normal(size=(8000, 3)).astype(np.float32)
    fisher = fisher_diagonal(net, btl.data.arrays(inputs, np.zeros(8000, int)), jax.random.key(1), batch_size=500)
    logits = inputs @ np.asarray(net.params["head"]["kernel"], float) + np.array([1.0, 0.0])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    each = (p * (1 - p))[:, :, None] * np.concatenate([inputs**2, np.ones((8000, 1))], 1)[:, None]
    found = np.concatenate([fisher["head"]["kernel"], fisher["head"]["bias"][None]]).T
    # The labels are drawn: a standard error of about 1 % at 8000 pictures, here four of them and more.
    np.testing.assert_allclose(found, each.mean(0), rtol=0.08)


def test_run_resume_and_report(data_dir, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    rows = Rows(path, {})
    photos = task.run(SMALL, rows, data_dir, tmp_path / "cache", progress=False)
    assert [len(part) for part in photos.split] == [6, 6, 12]
    assert len(np.unique(np.concatenate(photos.split))) == 24
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["method"], row["head"]) for row in found] == [
        (names.FROZEN, names.LINEAR),
        (names.L2_SP, names.LINEAR),
        (names.FROZEN, names.DENSE),
        (names.RECIPE, names.DENSE),
    ]
    by_name = {(row["method"], row["head"]): row for row in found}
    assert by_name[names.L2_SP, names.LINEAR]["state_policy"] == "frozen"
    assert by_name[names.RECIPE, names.DENSE]["settings_tried"] == 1
    for row in found:
        assert np.isfinite(row["nll"])
        assert len(row["probs"]) == 12
        assert str(data_dir) not in json.dumps(row)
    # 3x3x512 + 512x1024 weights, a scale and a shift for 512 and 1024 channels, 1024 + 1 of the head.
    assert by_name[names.L2_SP, names.LINEAR]["parameters"] == 9 * 512 + 512 * 1024 + 2 * (512 + 1024) + 1025
    # With every row there, nothing is run again.
    capsys.readouterr()
    task.run(SMALL, rows, data_dir, tmp_path / "cache", progress=False)
    assert capsys.readouterr().out == ""
    table = reports.report(SMALL, rows, photos)
    assert all(f"| {method} |" in table for method in METHODS)
    assert f"{names.L2_SP} minus {names.RECIPE}" in table
    reports.figures(SMALL, rows, photos, tmp_path)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("figure.png", "photographs.png"))


def test_learned_priors_lie_around_the_published_weights(data_dir, tmp_path):
    _, tail = published(NETWORKS["mobilenet"], data_dir)
    found = sources.Source(tail, tail, None, None, None, 0.0)
    centre = nets.tail_net(SMALL, found, None).params
    noise = [
        btl.tree.add(centre, btl.tree.scale(0.01, btl.tree.normal_like(jax.random.key(k), centre))) for k in range(8)
    ]
    iterates = btl.sources.Iterates.empty(centre, sources.RANK)
    for each in noise:
        iterates = iterates.update(each)
    fisher = jax.tree.map(jnp.ones_like, centre)
    for prior, expected in (
        # The variance of all eight, and that of the last five around their mean with divisor 4, are averaged.
        (sources.iterates_prior(iterates, centre, 0.1), 0.1**2 * ((1 + 5 / 4) / 2 + sources.ITERATES_FLOOR)),
        (fisher_prior(fisher, centre, 0.1), 0.1**2 / 1.1),
    ):
        mean, variance = btl.tree.by_paths(prior.mean), btl.tree.by_paths(prior.variance)
        path = "conv_pw_12/conv/kernel"
        np.testing.assert_array_equal(mean[path], btl.tree.by_paths(centre)[path])
        # Averaged over 500,000 weights, each with a relative error below 1.
        assert float(variance[path].mean()) == pytest.approx(expected, rel=0.01)


def test_bad_configurations():
    with pytest.raises(SystemExit, match=r"--methods has 'magic'; there are .*'from scratch'"):
        names.checked(names.Config(methods=("magic",)))
    with pytest.raises(
        SystemExit, match="--n has 7; half of the photographs are cats: give even numbers from 2 to 620"
    ):
        names.checked(names.Config(num_labels=(7,)))
    with pytest.raises(SystemExit, match="--seeds is 0; give at least 1"):
        names.checked(names.Config(seeds=0))


def test_command_line_without_this_machines_paths(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["run.py", "cats_vs_dogs", "--data-dir", str(tmp_path / "data"), "--demo"])
    assert _records.command_line() == "python -m benchmarks.run cats_vs_dogs --data-dir data --demo"


def test_networks_are_cut_where_they_can_be():
    assert tuple(NETWORKS) == run.NETWORKS
    for network in NETWORKS.values():

        def maps(network=network):
            body, tail = network.make(jax.random.key(0), cut=network.end).split(network.cut)
            return tail(body(jnp.zeros((2, 96, 96, 3))))

        assert jax.eval_shape(maps).shape == (2, 3, 3, network.channels)


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(SystemExit, match=r"the data directory has no resnet18-f37072fd\.pth; put the published file"):
        published(NETWORKS["resnet18"], tmp_path)
