"""SGD's iterates as a Gaussian: against numpy on the same iterates, and the fixture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.sources import IterateCollector, Iterates, from_iterates

FIXTURE = json.loads((Path(__file__).parent.parent / "fixtures" / "linear_gaussian.json").read_text())["swag"]


def _covariance(prior) -> np.ndarray:
    """Dense, in the order of ``jax.tree.leaves``."""
    size = btl.tree.size(prior.mean)
    flat, unravel = jax.flatten_util.ravel_pytree(prior.mean)
    columns = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(prior.covariance_mv(unravel(v)))[0])(
        jnp.eye(size, dtype=flat.dtype)
    )
    return np.asarray(columns)


def _stream(iterates, keep: int) -> Iterates:
    found = Iterates.empty(iterates[0], keep)
    for params in iterates:
        found = found.update(params)
    return found


# ---------------------------------------------------------------- known answers


@pytest.mark.x64
@pytest.mark.parametrize(
    "given",
    [
        lambda trees: trees,
        tuple,
        iter,
        lambda trees: jax.tree.map(lambda *xs: np.stack(xs), *trees),
        lambda trees: _stream(trees, FIXTURE["kept"]),
        lambda trees: _stream(trees, 5),
    ],
    ids=["list", "tuple", "generator", "stacked", "streamed", "more kept than used"],
)
def test_fixture(given):
    trees = [{"w": jnp.array(row)} for row in FIXTURE["iterates"]]
    prior = from_iterates(given(trees), rank=FIXTURE["kept"], eps=0.0)
    np.testing.assert_allclose(prior.mean["w"], FIXTURE["mean"], rtol=1e-12)
    np.testing.assert_allclose(_covariance(prior), FIXTURE["cov"], rtol=1e-12)


def _trees(num: int, seed: int = 0):
    """A drifting run, so that a running mean would not do."""
    rng = np.random.default_rng(seed)
    rows = np.cumsum(rng.normal(size=(num, 7)), axis=0)
    return rows, [{"a": row[:4].reshape(2, 2), "b": row[4:]} for row in rows]


@pytest.mark.x64
@pytest.mark.parametrize("num", [1, 3, 4, 11])
def test_streaming_equals_the_whole(num):
    rows, trees = _trees(num)
    iterates = _stream(trees, 4)
    assert int(iterates.count) == num
    flat = jax.flatten_util.ravel_pytree
    np.testing.assert_allclose(flat(iterates.mean)[0], rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(flat(iterates.variance)[0], rows.var(axis=0), rtol=1e-12)
    newest = jax.vmap(lambda tree: flat(tree)[0])(iterates.newest(min(num, 4)))
    np.testing.assert_array_equal(newest, rows[-4:])


@pytest.mark.x64
def test_is_the_covariance_of_the_iterates():
    rows, trees = _trees(11)
    prior = from_iterates(trees, rank=3, eps=0.3, covariance_scale=5.0)
    deviations = rows[-3:] - rows.mean(axis=0)
    truth = 2.5 * (np.diag(rows.var(axis=0)) + deviations.T @ deviations / 2) + 0.3 * np.eye(7)
    np.testing.assert_allclose(_covariance(prior), truth, rtol=1e-10, atol=1e-10)
    assert prior.rank == 3


def test_variance_survives_a_large_mean_in_float32():
    rng = np.random.default_rng(0)
    rows = (1e3 + 1e-2 * rng.normal(size=(200, 5))).astype(np.float32)
    truth = rows.astype(np.float64).var(axis=0)
    iterates = _stream([{"w": jnp.asarray(row)} for row in rows], 2)
    assert iterates.mean["w"].dtype == jnp.float32
    # float32 resolves 1000 to 6e-5, under 1 % of the standard deviation; E[w^2] - E[w]^2 would be off by 0.06.
    np.testing.assert_allclose(iterates.variance["w"], truth, rtol=0.02)
    assert np.abs((rows * rows).mean(axis=0) - rows.mean(axis=0) ** 2 - truth).max() > 100 * truth.max()


def test_half_precision_iterates_are_held_in_float32():
    iterates = _stream([{"w": jnp.array([1.0, 2.0], jnp.bfloat16)}, {"w": jnp.array([2.0, 4.0], jnp.bfloat16)}], 2)
    assert {x.dtype.name for x in jax.tree.leaves((iterates.mean, iterates.last.rows))} == {"float32"}
    assert iterates.mean["w"].tolist() == [1.5, 3.0]


def test_samples_have_the_covariance():
    rows = np.random.default_rng(0).normal(size=(30, 3)) * [0.1, 0.01, 1.0]
    prior = from_iterates([{"w": jnp.asarray(row)} for row in rows], rank=2, eps=1e-5)
    found = np.cov(jax.jit(lambda key: prior.sample(key, 20_000))(jax.random.key(0))["w"].T)
    deviations = rows[-2:] - rows.mean(axis=0)
    truth = 0.5 * (np.diag(rows.var(axis=0)) + deviations.T @ deviations) + 1e-5 * np.eye(3)
    # The covariance of n draws has standard errors sqrt((s_ii s_jj + s_ij^2) / n); of 6 numbers none is 4 away.
    error = np.sqrt((np.outer(np.diag(truth), np.diag(truth)) + truth**2) / 20_000)
    assert np.max(np.abs(found - truth) / error) < 4


@pytest.mark.x64
def test_scale_may_be_traced():
    rows, trees = _trees(6)
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *trees)
    iterates = _stream(trees, 3)

    def log_prob(scale):
        return from_iterates(iterates, rank=3, eps=0.1, covariance_scale=scale).log_prob(
            jax.tree.map(lambda x: x[0], stacked)
        )

    found = jax.jit(jax.vmap(log_prob))(jnp.array([0.5, 20.0]))
    deviations = rows[-3:] - rows.mean(axis=0)
    for value, c in zip(found, (0.5, 20.0), strict=True):
        covariance = c / 2 * (np.diag(rows.var(axis=0)) + deviations.T @ deviations / 2) + 0.1 * np.eye(7)
        r = rows[0] - rows.mean(axis=0)
        truth = -0.5 * (r @ np.linalg.solve(covariance, r) + np.linalg.slogdet(2 * np.pi * covariance)[1])
        np.testing.assert_allclose(value, truth, rtol=1e-9)


def test_floor_carries_weights_that_never_moved():
    trees = [{"w": jnp.array([1.0, 5.0])}, {"w": jnp.array([3.0, 5.0])}]
    prior = from_iterates(trees, rank=2, eps=0.5)
    np.testing.assert_allclose(_covariance(prior), [[1 / 2 + 2 / 2 + 0.5, 0], [0, 0.5]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"diagonal at 'w' has 1 of 2 values <= 0 .*add a floor eps > 0"):
        from_iterates(trees, rank=2, eps=0.0)


# ---------------------------------------------------------------- collecting while fitting


class _State(NamedTuple):
    params: jax.Array


class _Info(NamedTuple):
    objective: jax.Array


def test_collector_takes_one_iterate_per_chunk():
    walk = btl.Inference(
        lambda key, params: _State(params),
        lambda key, state, batch: (_State(jax.tree.map(lambda x: x + 1, state.params)), _Info(jnp.float32(0.0))),
        lambda state: btl.Point(state.params),
    )
    data = btl.data.arrays(np.zeros((2, 1)), np.zeros(2))
    collector = IterateCollector(keep=2, after=4)
    assert collector.iterates is None
    start = {"w": jnp.array([0.0, 10.0])}
    settings = {"steps": 10, "chunk_size": 2, "callbacks": [collector], "progress": False}
    result = btl.fit(jax.random.key(0), walk, start, data, **settings)
    assert result.steps == 10, "a collector stops nothing"
    # After steps 6, 8 and 10 the parameters were the start plus as many.
    assert int(collector.iterates.count) == 3
    np.testing.assert_allclose(collector.iterates.mean["w"], [8.0, 18.0], rtol=1e-6)
    np.testing.assert_allclose(collector.iterates.variance["w"], [8 / 3, 8 / 3], rtol=1e-6)
    np.testing.assert_array_equal(collector.iterates.newest(2)["w"], [[8.0, 18.0], [10.0, 20.0]])


# ---------------------------------------------------------------- what it refuses

TWO = [{"w": jnp.array([1.0, 2.0, 3.0])}, {"w": jnp.array([2.0, 1.0, 5.0])}]


@pytest.mark.parametrize(
    ("iterates", "changes", "message"),
    [
        (TWO[:1], {}, "needs at least 2 iterates and got 1; use sources.point for one"),
        ([], {}, "needs at least 2 iterates and got 0; use sources.point"),
        (TWO, {"rank": 3}, "rank is 3, but only 2 iterates were kept; collect with keep=3, or lower the rank"),
        (TWO, {"rank": 1}, "rank is 1; at least 2 iterates are needed"),
        (TWO, {"rank": 0}, "rank is 0; at least 2 iterates are needed"),
        (TWO, {"covariance_scale": 0.0}, "covariance_scale is 0.0; it multiplies the covariance and must be above 0"),
        (TWO, {"covariance_scale": np.nan}, "covariance_scale is nan; it multiplies"),
        (TWO, {"eps": -1e-3}, "eps is -0.001; the floor of the variances must be 0 or more"),
        ([*TWO, {"w": jnp.array([1.0, jnp.nan, 0.0])}], {}, "mean at 'w' has 1 non-finite of 3 values; the source div"),
        ([*TWO, {"w": jnp.ones(1)}], {}, r"the new iterate and the ones before differ at 'w': \(1,\) against \(3,\)"),
        ([*TWO, {"v": jnp.ones(3)}], {}, "the new iterate and the ones before differ: 'w' of shape .* has 'v'"),
        ({"w": jnp.ones((3, 2)), "b": jnp.ones(4)}, {}, "stacked iterates need one leading axis T on every leaf"),
        ({"w": jnp.ones((3, 2)), "b": jnp.ones(())}, {}, "stacked iterates need one leading axis T on every leaf"),
    ],
)
def test_refuses(iterates, changes, message):
    with pytest.raises(ValueError, match=message):
        from_iterates(iterates, **{"rank": 2, "eps": 0.1, **changes})


def test_refuses_to_keep_fewer_than_two():
    with pytest.raises(ValueError, match="keep is 1; a covariance needs the last 2 iterates or more"):
        Iterates.empty(TWO[0], 1)
    with pytest.raises(ValueError, match="keep is 1"):
        IterateCollector(keep=1)
    with pytest.raises(TypeError, match="params at 'w' has dtype int32"):
        Iterates.empty({"w": jnp.zeros(2, int)}, 2)
