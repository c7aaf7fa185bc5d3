"""What is asked for in the benchmark of active learning, and its table."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

import bayestl as btl
from benchmarks import active_learning


def test_no_row_is_asked_for_twice_and_the_strange_half_holds_no_first_label(monkeypatch: Any):
    monkeypatch.setattr(active_learning, "STEPS", 2)
    net = btl.nets.mlp(jnp.array([0, 1], jnp.uint32), (64, 64, 10))
    given = active_learning.task(net, active_learning.MIXED, 0)
    like = active_learning.task(net, active_learning.LIKE_THE_TEST, 0)
    strange = np.any(given.pool != like.pool, axis=1)
    assert strange.sum() == active_learning.POOL // 2
    assert not strange[given.first].any()
    np.testing.assert_array_equal(given.test[0], like.test[0])
    asked: list[np.ndarray] = []
    sizes: list[int] = []

    def first_rows(key: Any, seen: Any) -> np.ndarray:
        sizes.append(seen.pool.outputs.shape[1])
        asked.append(np.arange(5))
        return asked[-1]

    monkeypatch.setitem(active_learning.STRATEGIES, "first rows", first_rows)
    curve = active_learning.run(net, given, "first rows", 0, most=15)
    assert curve["labels"] == [10, 15]
    assert sizes == [290]


def test_the_last_column_is_the_mean_of_paired_differences():
    rows = [
        {"seed": seed, "pool": pool, "strategy": strategy, "labels": [10, 20], "nll": [1.0, nll + 0.1 * seed]}
        for seed in (1, 0)
        for pool in (active_learning.LIKE_THE_TEST, active_learning.MIXED)
        for strategy, nll in ((active_learning.RANDOM, 0.8), ("EPIG", 0.5 + 0.1 * seed))
    ]
    lines = active_learning.table(rows, at=(20,)).splitlines()
    assert lines[2] == "| like the test set | random | 0.850 ± 0.050 |  |"
    assert lines[3] == "| like the test set | EPIG | 0.600 ± 0.100 | 0.250 ± 0.050 |"
    assert len(lines) == 6
