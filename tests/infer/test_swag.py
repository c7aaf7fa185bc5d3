"""SWAG against numpy on replayed iterates, and against the law of SGD under noise of known size."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import optax
import pytest

import bayestl as btl

SIZE, NUM = 6, 30
RUN = {"batch_size": NUM, "chunk_size": 100, "progress": False}


def _covariance(gaussian):
    """(D, D), as a function that can be vmapped."""
    columns = jax.vmap(lambda e: gaussian.covariance_mv(lg.tree(e)))(jnp.eye(SIZE))
    return jnp.concatenate([x.reshape(SIZE, -1) for x in jax.tree.leaves(columns)], axis=1)


def _swag(iterates, rank, scale, eps):
    """Mean and covariance in numpy, from (T, D)."""
    last = iterates[-rank:] - iterates.mean(0)
    spread = np.diag(iterates.var(0)) + last.T @ last / (len(last) - 1)
    return iterates.mean(0), scale / 2 * spread + eps * np.eye(SIZE)


@pytest.mark.x64
def test_equals_numpy_on_replayed_iterates():
    structure = lg.BY_NAME["low rank"]
    problem = lg.draw(structure, SIZE, NUM, seed=0)
    rate, rank, start, every = 0.5 / problem.largest_curvature, 4, 10, 3
    inference = btl.infer.swag(
        lg.joint(structure, problem), optax.sgd(float(rate)), rank=rank, start=start, every=every, eps=1e-3, scale=2.0
    )
    begin = np.linspace(-1, 1, SIZE)
    # With all the data in every batch SGD is theta - m <- (I - rate Lambda / N) (theta - m).
    shrink = np.eye(SIZE) - rate * np.linalg.inv(problem.covariance) / NUM
    way = problem.mean + np.stack([np.linalg.matrix_power(shrink, t) @ (begin - problem.mean) for t in range(42)])
    settings = {**RUN, "chunk_size": 16}
    for steps, collected in ((41, 10), (16, 2)):  # the ring full, and fewer than its rows
        fitted: Any = btl.fit(
            jax.random.key(0), inference, lg.tree(jnp.asarray(begin)), lg.data(problem), steps=steps, **settings
        )
        iterates = way[start + every : steps + 1 : every]
        assert fitted.state.iterates.count == len(iterates) == collected
        mean, covariance = _swag(iterates, rank, 2.0, 1e-3)
        np.testing.assert_allclose(lg.flat(fitted.params), mean, rtol=1e-10)
        np.testing.assert_allclose(_covariance(fitted.posterior), covariance, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(lg.flat(fitted.state.params), way[steps], rtol=1e-10)
        # The convention is that of sources.from_iterates.
        other = btl.sources.from_iterates(
            list(map(lg.tree, iterates)), rank=min(rank, collected), eps=1e-3, covariance_scale=2.0
        )
        np.testing.assert_allclose(_covariance(other), covariance, rtol=1e-9, atol=1e-13)


def _noisy_sgd(rate, deviation, key):
    """SGD whose gradients have Gaussian noise of known size."""

    def update(updates, state, params=None):
        noise = btl.tree.normal_like(jax.random.fold_in(key, state), updates)
        return jax.tree.map(lambda g, e: -rate * (g + deviation * e), updates, noise), state + 1

    return optax.GradientTransformation(lambda params: jnp.int32(0), update)


@pytest.mark.x64
def test_its_expectation_is_that_of_the_law_of_sgd():
    structure = lg.BY_NAME["isotropic"]
    problem = lg.draw(structure, SIZE, NUM, seed=1)
    rate, deviation, rank, start, every, steps, members = 0.5 / problem.largest_curvature, 0.3, 4, 4, 2, 30, 1000
    joint = lg.joint(structure, problem)

    def make(key):
        optimizer = _noisy_sgd(rate, deviation, key)
        return btl.infer.swag(
            joint, optimizer, rank=rank, start=start, every=every, eps=1e-3, allow_weight_decay=True
        )  # fmt: skip

    keys = jax.random.split(jax.random.key(0), members)
    begin = lg.tree(jnp.asarray(problem.mean))
    result: Any = btl.fit_many(keys, make, keys, begin, lg.data(problem), steps=steps, **RUN)
    covariances = np.asarray(jax.vmap(_covariance)(result.posterior))
    means = np.concatenate([np.asarray(x).reshape(members, -1) for x in jax.tree.leaves(result.params)], axis=1)

    # x_t = A x_(t-1) + rate deviation xi from x_0 = 0: Cov(x_s, x_t) = V_s A^(t-s), V_s = sum_(i<s) A^i q A^i.
    shrink = np.eye(SIZE) - rate * np.linalg.inv(problem.covariance) / NUM
    powers = [np.linalg.matrix_power(shrink, i) for i in range(steps + 1)]
    at = np.arange(start + every, steps + 1, every)
    variances = {s: (rate * deviation) ** 2 * sum(powers[i] @ powers[i] for i in range(s)) for s in at}
    joint_law = np.block([[variances[min(s, t)] @ powers[abs(t - s)] for t in at] for s in at])
    num = len(at)
    centre = np.kron(np.eye(num) - np.ones((num, num)) / num, np.eye(SIZE))
    centred = (centre @ joint_law @ centre.T).reshape(num, SIZE, num, SIZE)
    each = np.stack([centred[t, :, t] for t in range(num)])
    expected = 0.5 * (np.diag(np.diag(each.mean(0))) + each[-rank:].sum(0) / (rank - 1)) + 1e-3 * np.eye(SIZE)

    # Five standard errors over independent members.
    error = covariances.std(0) / np.sqrt(members)
    assert np.all(np.abs(covariances.mean(0) - expected) < 5 * error)
    assert np.all(error < 0.05 * np.sqrt(np.outer(np.diag(expected), np.diag(expected))))
    mean_law = joint_law.reshape(num, SIZE, num, SIZE).mean((0, 2))
    spread = np.sqrt((mean_law**2 + np.outer(np.diag(mean_law), np.diag(mean_law))) / members)
    assert np.all(np.abs(np.cov(means.T) - mean_law) < 5 * spread)
    assert np.all(np.abs(means.mean(0) - problem.mean) < 5 * np.sqrt(np.diag(mean_law) / members))


def test_with_too_few_iterates_it_says_so_and_gives_the_point():
    structure = lg.BY_NAME["isotropic"]
    problem = lg.draw(structure, SIZE, NUM, seed=2)
    inference = btl.infer.swag(lg.joint(structure, problem), optax.sgd(0.01), rank=2, start=5, every=2, eps=1e-3)
    begin = lg.tree(jnp.zeros(SIZE))
    words = (
        r"swag has collected 1 iterates in 8 steps, and a covariance needs 2: run longer, or collect earlier \(start\)"
    )
    with pytest.warns(RuntimeWarning, match=words):
        fitted = btl.fit(jax.random.key(0), inference, begin, lg.data(problem), steps=8, **RUN)
    assert isinstance(fitted.posterior, btl.Point)
    assert np.array_equal(lg.flat(fitted.params), lg.flat(fitted.state.params))
    # Inside a program it cannot say so: NaN, not the zeros that the statistics start from.
    state = inference.init(jax.random.key(0), begin)
    traced: Any = jax.jit(inference.posterior)(state)
    assert np.all(np.isnan(lg.flat(traced.mean)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 1}, "rank is 1; it must be at least 2"),
        ({"start": -1}, "start is -1; it must be at least 0"),
        ({"every": 0}, "every is 0; it must be at least 1"),
        ({"eps": 0.0}, "eps is 0.0; it must be above 0: weights that never moved have a variance of 0"),
        ({"scale": -1.0}, "scale is -1.0; it must be above 0"),
        ({"rank": 7}, "rank is 7, but there are only 6 parameters; lower it"),
    ],
)
def test_bad_input(changes, message):
    structure = lg.BY_NAME["isotropic"]
    joint = lg.joint(structure, lg.draw(structure, SIZE, NUM, seed=2))
    settings: Any = {"rank": 2, "start": 5, "every": 2, "eps": 1e-3, **changes}
    with pytest.raises(ValueError, match=message):
        btl.infer.swag(joint, optax.sgd(0.1), **settings).init(jax.random.key(0), lg.tree(jnp.zeros(SIZE)))
