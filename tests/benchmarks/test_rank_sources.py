"""The table of scores: correlations of means over seeds within targets, and what the first choice loses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from benchmarks._rank_domains import control
from benchmarks.rank_sources import features, run_target, table, train_source
from benchmarks.tasks.control_config import Config


def test_correlations_and_losses_by_hand():
    rows = []
    for target, offset in (("easy", 0.0), ("hard", -5.0)):
        for seed in (0, 1):
            for place, source in enumerate("abc"):
                # Seeds scatter by more than sources differ, and the same for all; the second score is the wrong way.
                result = offset + 0.1 * place + seed
                scores = {"right": 0.1 * place - seed, "wrong": -0.1 * place}
                key = {"domain": "digits", "target": target, "seed": seed, "source": source}
                rows.append({**key, "test_log_likelihood": result, "scores": scores})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(rows).splitlines()]
    assert lines[0] == ["score", "digits", "all", "right minus it", "its first choice"]
    assert lines[2][1:3] == ["6", "6"]
    right, wrong = lines[3], lines[4]
    assert right[0] == "right"
    assert right[1].startswith("+1.00")
    assert right[3:] == ["", "0.000 nats lost"]
    assert wrong[1].startswith("-1.00")
    assert wrong[3:] == ["+2.00 [+2.00, +2.00]", "0.200 nats lost"]


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.tanh])
def test_features_are_what_enters_the_head(activation):
    net = btl.nets.mlp(jax.random.key(0), (3, 5, 4, 2), activation)
    inputs = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    hidden = inputs.astype(np.float64)
    for layer in ("dense_0", "dense_1"):
        hidden = np.asarray(activation(hidden @ np.asarray(net.params[layer]["kernel"], np.float64)))
    made = features(net, inputs)
    np.testing.assert_allclose(made.features, hidden, rtol=1e-4, atol=1e-6)
    logits = hidden @ np.asarray(net.params["head"]["kernel"], np.float64)
    np.testing.assert_allclose(made.probabilities, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-4)


@pytest.mark.slow
def test_policies_are_sources_as_they_were_published(data_dir):
    config = Config(targets=("weak",), seeds=2, rollouts=1, num_envs=2, num_steps=8, episodes=4)
    domain = control(data_dir, config, episodes=8)
    assert list(domain.sources) == ["run 0", "run 1", "cart and pole exchanged", "untrained"]
    sources = {name: train_source(domain, name) for name in domain.sources}
    assert sources["run 1"] is domain.sources["run 1"]
    rows = run_target(domain, sources, "weak", seed=0)
    assert [row["source"] for row in rows] == list(sources)
    assert all(np.isfinite(row["test_log_likelihood"]) for row in rows)
    assert all(np.isfinite(list(row["scores"].values())).all() for row in rows)
