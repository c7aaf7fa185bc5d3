"""Scales of layers in a transfer: what they find where the answer is known, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.transfers import _by_layer

NET = btl.nets.mlp(jax.random.key(0), (20, 8, 3))
KEY, LIKELIHOOD = jax.random.key(2), btl.likelihoods.categorical()
# The body finds the corners; the head names them by the labels of another task, half as sure.
SOURCE = {
    "dense_0": {"kernel": jnp.eye(20, 8).at[3:].set(0), "bias": jnp.zeros(8)},
    "head": {"kernel": jnp.eye(8, 3), "bias": jnp.zeros(3)},
}


def blobs(key: int, per_class: int) -> btl.Batch:
    labels = np.tile(np.arange(3), per_class)
    noise = np.random.default_rng(key).normal(size=(len(labels), 20))
    return btl.Batch(jnp.asarray(np.eye(3, 20)[labels] * 3 + noise, jnp.float32), jnp.asarray((labels + 1) % 3))


def run(train: btl.Batch, **options: Any) -> btl.TransferResult:
    return btl.transfer(KEY, NET, SOURCE, train, LIKELIHOOD, num_scales=7, steps=40, **options)


@pytest.fixture(scope="module")
def pair() -> tuple[btl.TransferResult, btl.TransferResult]:
    return run(blobs(1, 6)), run(blobs(1, 6), by_layer=True)


def test_the_body_is_trusted_further_than_the_head(pair: Any, tmp_path: Path):
    shared, layered = pair
    assert layered.layers.names == ("dense_0", "head")
    body, head = layered.layers.log_factors
    assert head > body + 1, layered
    assert layered.layers.score > layered.layers.shared_score
    row = layered.trust[-1]
    assert row.name.endswith("scale per layer")
    assert max(row.held_out) > max(max(other.held_out) for other in shared.trust)
    assert str(layered.layers) in str(layered)
    layered.save(tmp_path / "layered.bayestl")
    assert str(btl.TransferResult.load(tmp_path / "layered.bayestl", NET, LIKELIHOOD)) == str(layered)


def test_families_with_a_shared_scale_are_what_they_were(pair: Any):
    shared, layered = pair
    assert [row.name for row in layered.trust[:-1]] == [row.name for row in shared.trust]
    for one, other in zip(shared.trust, layered.trust[:-1], strict=True):
        np.testing.assert_array_equal(one.held_out, other.held_out)
    assert sum(row.weight for row in layered.trust) == pytest.approx(1)
    assert layered.steps > shared.steps
    assert layered.left_out is not None
    assert shared.layers is None


def test_it_goes_by_the_evidence_where_the_criterion_has_no_gradient():
    inputs = np.random.default_rng(0).normal(size=(12, 20))
    targets = jnp.asarray(inputs[:, :1] - 2 * inputs[:, 1:2] + 0.1, jnp.float32)
    result = btl.transfer(
        KEY,
        btl.nets.mlp(jax.random.key(0), (20, 8, 1)),
        {**SOURCE, "head": {"kernel": jnp.ones((8, 1)), "bias": jnp.zeros(1)}},
        btl.Batch(jnp.asarray(inputs, jnp.float32), targets),
        btl.likelihoods.normal(),
        num_scales=2,
        steps=5,
        by_layer=True,
    )
    assert result.layers is not None
    assert np.isfinite(result.held_out)


def test_one_example_of_each_class_leaves_nothing_to_learn_from():
    result = run(blobs(1, 1), by_layer=True)
    assert result.layers is None
    assert any("no scales of layers" in note for note in result.notes)


def test_too_many_examples_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_by_layer, "_MOST", 17)
    with pytest.raises(ValueError, match="as many rows as there are outputs of all examples, 18; at most 17"):
        run(blobs(1, 2), by_layer=True)


def test_a_low_rank_prior_is_weighed_part_by_part_and_other_correlations_are_left_as_they_are():
    train = blobs(1, 6)
    columns = jax.tree.map(lambda x: jnp.stack([x, -0.5 * x + 0.1]), SOURCE)
    low_rank = btl.gaussians.low_rank(SOURCE, 1e-3, columns)
    options: dict[str, Any] = {"num_scales": 3, "steps": 10, "by_layer": True}
    result = btl.transfer(KEY, NET, low_rank, train, LIKELIHOOD, **options)
    assert any(row.name == "source, its own covariance" for row in result.trust)
    at_best = btl.LogJoint(NET, LIKELIHOOD, low_rank, num_data=18)
    criterion = btl.tune.k_fold(btl.tune.groups_by_class(train.targets))
    learned = btl.tune.layer_scales(KEY, at_best, SOURCE, train, criterion, rounds=1, steps=20)
    assert learned.names == ("dense_0", "head", "low rank")
    assert learned.score >= learned.shared_score
    size = btl.tree.size(SOURCE)
    dense = btl.gaussians.dense(SOURCE, 0.5 * jnp.eye(size) + 0.01)
    result = btl.transfer(KEY, NET, dense, train, LIKELIHOOD, **options)
    assert result.layers is not None
    assert result.layers.names == ("dense_0", "head")
