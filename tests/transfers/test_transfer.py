"""The front door: what it chooses where the answer is known, what it says, what it refuses, its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

NET = btl.nets.mlp(jax.random.key(0), (20, 8, 3))
SETTINGS: dict[str, Any] = {"num_scales": 9, "steps": 40}


def blobs(key: int, per_class: int, shift: int = 0) -> btl.Batch:
    """Three classes around corners, and 17 inputs of noise; ``shift`` moves the labels: a head then misleads."""
    labels = np.tile(np.arange(3), per_class)
    noise = np.random.default_rng(key).normal(size=(len(labels), 20))
    return btl.Batch(jnp.asarray(np.eye(3, 20)[labels] * 2 + noise, jnp.float32), jnp.asarray((labels + shift) % 3))


@pytest.fixture(scope="module")
def source() -> btl.Net:
    """A network that solves the task, written down: the corners' coordinates are the logits."""
    params = {
        "dense_0": {"kernel": jnp.eye(20, 8).at[3:].set(0), "bias": jnp.zeros(8)},
        "head": {"kernel": 2 * jnp.eye(8, 3), "bias": jnp.zeros(3)},
    }
    return btl.Net(params, (), NET.apply)


def run(source: Any, train: btl.Batch, **more: Any) -> btl.TransferResult:
    net = btl.nets.mlp(jax.random.key(5), (20, 8, 3))
    return btl.transfer(jax.random.key(2), net, source, train, btl.likelihoods.categorical(), **{**SETTINGS, **more})


def test_it_trusts_a_source_of_the_same_task(source: btl.Net, tmp_path: Path):
    result = run(source, blobs(1, 2))
    by_name = {row.name: row.weight for row in result.trust}
    # Six examples hardly tell it from the same source with its head at zero.
    assert by_name["source"] == max(by_name.values()) > 0.3, result
    assert by_name["fresh, head at zero"] < 0.2, result
    assert sum(by_name.values()) == pytest.approx(1)
    assert result.verdict.difference > 0
    test = blobs(2, 60)
    assert float(btl.metrics.nll(result.predict(test.inputs), test.targets)) < 0.6
    assert "source, head at zero" in str(result)
    result.save(tmp_path / "transfer.bayestl")
    again = btl.TransferResult.load(tmp_path / "transfer.bayestl", NET, btl.likelihoods.categorical())
    assert str(again) == str(result)
    np.testing.assert_array_equal(again.predict(test.inputs).probs, result.predict(test.inputs).probs)
    for one, two in zip(jax.tree.leaves(again.prior), jax.tree.leaves(result.prior), strict=True):
        np.testing.assert_array_equal(one, two)
    # What other programs read is the posterior: the prior that goes along has no weight.
    drawn = btl.load(tmp_path / "transfer.bayestl").posterior.sample(jax.random.key(0), 20)
    members = np.asarray(result.posterior.draws["head"]["bias"])
    assert all((row == members).all(-1).any() for row in np.asarray(drawn["head"]["bias"]))


def test_it_does_not_trust_a_head_that_misleads(source: btl.Net):
    result = run(source, blobs(1, 2, shift=1))
    assert {row.name: row.weight for row in result.trust}["source"] < 0.05, result


def test_one_example_of_each_class_and_one_class_without_any(source: btl.Net):
    result = run(source, blobs(1, 1))
    assert result.left_out is None
    assert any(
        "one example of each class, so that leaving examples out leaves nothing" in note for note in result.notes
    )
    # The mean of the source predicts as it is, and the others know nothing.
    each = btl.likelihoods.categorical()(NET(source.params, blobs(1, 1).inputs)).log_prob(blobs(1, 1).targets)
    assert result.trust[0].held_out[0] == pytest.approx(float(each.mean()), abs=1e-5)
    assert result.trust[1].held_out[0] == pytest.approx(-np.log(3), abs=1e-5)
    few = blobs(1, 4)
    rows = np.flatnonzero(np.asarray(few.targets) < 2)[:6]
    result = run(source, btl.Batch(few.inputs[rows], few.targets[rows]), new="head/**")
    assert any("no example of class 2" in note for note in result.notes)
    assert [row.name for row in result.trust] == ["source, head at zero", "fresh, head at zero"]


def test_one_example_of_each_class_takes_scales_at_which_trained_outputs_are_typical(source: btl.Net):
    """The head misleads, so that networks with a head at zero predict. Their scale is not that at which draws of the
    prior vary as the source's logits do: with one example each, modes there hardly leave zero."""
    train = blobs(1, 1, shift=1)
    result = run(source, train, keep=1)
    assert {row.name: row.weight for row in result.trust}["source"] < 0.15, result

    def variance(params: Any) -> float:
        logits = np.asarray(NET(params, train.inputs))
        return np.mean((logits - logits.mean(-1, keepdims=True)) ** 2)

    row = max(result.trust[1:], key=lambda row: row.weight)
    heaviest = row.deviations[int(np.argmax(row.weights))]
    # By the prior's draws: the scale in the middle but one.
    assert heaviest > row.deviations[4], result
    assert variance(result.single.params) > 0.2 * np.clip(variance(source.params), 2, 200)


@pytest.mark.slow
def test_several_sources_and_a_gaussian(source: btl.Net):
    other = btl.gaussians.diagonal(NET.params, jax.tree.map(jnp.ones_like, NET.params))
    result = run([source, other], blobs(1, 2))
    names = [row.name for row in result.trust if "head times" not in row.name]
    assert names == [
        "source 1",
        "source 1, head at zero",
        "source 2",
        "source 2, head at zero",
        "source 2, its own covariance",
        "fresh, head at zero",
    ]
    assert sum(row.weight for row in result.trust[:2]) > 0.5


@pytest.mark.slow
def test_the_fresh_network_is_not_the_source(source: btl.Net):
    """Where the network's parameters are the source's, its body would else come back as a fresh one."""
    net = btl.Net(source.params, (), NET.apply)
    result = btl.transfer(
        jax.random.key(2), net, source, blobs(1, 2), btl.likelihoods.categorical(), **{**SETTINGS, "keep": 99}
    )
    draws = np.asarray(result.posterior.draws["dense_0"]["kernel"])
    distance = np.abs(draws - np.asarray(source.params["dense_0"]["kernel"])).mean((1, 2))
    assert distance.max() > 0.1


def test_what_is_refused(source: btl.Net):
    with pytest.raises(ValueError, match="source and target differ at 'dense_0/kernel'"):
        run(btl.nets.mlp(jax.random.key(0), (21, 8, 3)), blobs(1, 2))
    with pytest.raises(ValueError, match="share no parameter"):
        run(source, blobs(1, 2), new="**")
    with pytest.raises(ValueError, match="still depend on the inputs"):
        run(source, blobs(1, 2), head="dense_0/bias")
    with pytest.raises(ValueError, match="at least 2 are needed"):
        run(source, btl.Batch(jnp.ones((1, 20)), jnp.zeros(1, int)))
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.ones(20)})
    flat = btl.Batch(jnp.asarray(blobs(1, 2).inputs), jnp.full(6, 2.5))
    with pytest.raises(ValueError, match=r"the same, 2\.5: nothing can be learned"):
        btl.transfer(jax.random.key(0), net, net, flat, btl.likelihoods.normal(1.0))
