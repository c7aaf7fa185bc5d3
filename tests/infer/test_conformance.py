"""What every inference method must do. A new method joins by one line in ``METHODS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import optax
import pytest
from flax import linen, nnx

import bayestl as btl


class Method(NamedTuple):
    """A method, how it is made, and its own exact law on linear-Gaussian problems."""

    name: str
    make: Callable[[btl.LogJoint], btl.Inference]
    law: Callable[[btl.Posterior, lg.Problem], None]


def point_at_posterior_mean(posterior: Any, problem: lg.Problem) -> None:
    # Heavy ball leaves 0.95^1000 of the start; Adam's last rates, which add up to 1e-4, leave some 1e-8.
    draw = jax.tree.map(lambda x: x[0], posterior.sample(jax.random.key(0), 1))
    np.testing.assert_allclose(lg.flat(draw), problem.mean, rtol=1e-7, atol=1e-7)


def mean_field_optimum(posterior: Any, problem: lg.Problem) -> None:
    # Independent Gaussians: the posterior mean, variances 1 / Lambda_ii. With 64 draws a step and rates that halve
    # every 100 steps, variances are left 3 % of noise at most, and means a tenth of a standard deviation.
    variance = 1 / np.diag(np.linalg.inv(problem.covariance))
    np.testing.assert_allclose(lg.flat(posterior.variance()), variance, rtol=0.1)
    assert np.all(np.abs(lg.flat(posterior.mean) - problem.mean) < 0.1 * np.sqrt(variance))


SGD = optax.sgd(0.05, momentum=0.9)
ADAM = optax.adam(optax.exponential_decay(0.1, 100, 0.5))

METHODS = [
    Method("map_estimate, sgd", lambda joint: btl.infer.map_estimate(joint, SGD), point_at_posterior_mean),
    Method("map_estimate, adam", lambda joint: btl.infer.map_estimate(joint, ADAM), point_at_posterior_mean),
    Method("proximal_map", lambda joint: btl.infer.proximal_map(joint, 0.05, momentum=0.9), point_at_posterior_mean),
    Method(
        "mean_field_vi",
        lambda joint: btl.infer.mean_field_vi(joint, ADAM, num_samples=64, initial_scale=0.2),
        mean_field_optimum,
    ),
]

all_methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)

COMPILED: list[str] = []


@jax.monitoring.register_event_duration_secs_listener
def _note(event: str, duration: float, **_: Any) -> None:
    if event.endswith("backend_compile_duration"):
        COMPILED.append(event)


# ---------------------------------------------------------------- small problems in float32

SIZE, NUM = 6, 20


def _tree(x: Any) -> Any:
    """Parameters in every kind of container."""
    state = nnx.State({"kernel": nnx.Param(x[:2].reshape(2, 1)), "layers": {0: {"bias": nnx.Param(x[2])}}})
    return {"head/0": (x[3:4], [x[4:5], {}]), "flax": state, "last": x[5:]}


def _apply(params: Any, state: Any, inputs: Any, key: Any) -> tuple[Any, Any]:
    """A linear network that counts its steps, from 1, and gives NaN at one of them."""
    outputs = jnp.where(state["count"] == state["fails_at"], jnp.nan, lg.linear(params, inputs))
    return outputs, {**state, "count": state["count"] + (key is not None)}


def _joint(scale: float = 1.0, fails_at: int = 0) -> tuple[btl.LogJoint, Any]:
    state = {"count": jnp.int32(1), "fails_at": jnp.int32(fails_at)}
    net = btl.Net(_tree(jnp.linspace(-1.0, 1.0, SIZE)), state, _apply)
    prior = btl.gaussians.isotropic(net.params, scale)
    return btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=NUM), net.params


def _data(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return btl.data.arrays(rng.normal(size=(NUM, SIZE)), rng.normal(size=NUM))


def _fit(method: Method, joint: btl.LogJoint, params: Any, data: Any, key: int = 0, **changes: Any) -> btl.FitResult:
    settings = {"steps": 7, "batch_size": 8, "chunk_size": 3, "progress": False, **changes}
    return btl.fit(method.make(joint), jax.random.key(key), params, data, **settings)


def _equal(x: Any, y: Any) -> bool:
    """Bit for bit."""
    same = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), x, y)
    return all(jax.tree.leaves(same))


@all_methods
def test_keeps_the_tree_and_compiles_once(method):
    joint, params = _joint()
    seen = []
    result = _fit(method, joint, params, _data(), callbacks=[lambda event: seen.append(len(COMPILED))])
    assert len(seen) == 3
    assert seen[0] == seen[-1], "a later chunk, or the shorter last one, compiled something"
    assert isinstance(result.posterior, btl.Posterior)
    draws = result.posterior.sample(jax.random.key(1), 5)
    assert jax.tree.structure(draws) == jax.tree.structure(params)
    for draw, start in zip(jax.tree.leaves(draws), jax.tree.leaves(params), strict=True):
        assert draw.shape == (5, *start.shape)
        assert draw.dtype == start.dtype
    assert not _equal(result.params, params)

    # The same method made anew, around other numbers of the same shapes, is served by the same program.
    other, params = _joint(scale=2.0)
    compiled = len(COMPILED)
    again = _fit(method, other, params, _data(seed=1))
    assert len(COMPILED) == compiled
    assert not _equal(again.params, result.params)


@all_methods
def test_the_key_decides_and_the_chunks_do_not(method):
    joint, params = _joint()
    first = _fit(method, joint, params, _data())
    assert _equal(first.state, _fit(method, joint, params, _data()).state)
    assert not _equal(first.params, _fit(method, joint, params, _data(), key=1).params)
    one_chunk = _fit(method, joint, params, _data(), chunk_size=100)
    assert _equal(first.state, one_chunk.state)
    assert list(first.history) == list(one_chunk.history)
    assert all(np.array_equal(first.history[name], one_chunk.history[name]) for name in first.history)


class _Dropping(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return linen.Dense(1)(linen.Dropout(0.5, deterministic=not train)(x))[..., 0]


@all_methods
def test_carries_the_networks_state_and_randomness(method):
    data = _data()
    module = _Dropping()
    variables = module.init(jax.random.key(0), data.inputs)
    net = btl.nets.from_linen(module, variables, train={"train": True}, evaluate={"train": False})
    prior = btl.gaussians.isotropic(net.params, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=NUM)
    result = _fit(method, joint, net.params, data, steps=4, chunk_size=2, batch_size=NUM)
    assert jax.tree.structure(result.net_state) == jax.tree.structure(net.state)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.state))
    moved = result.net_state["batch_stats"]["BatchNorm_0"]["mean"] - variables["batch_stats"]["BatchNorm_0"]["mean"]
    assert np.abs(moved).min() > 0
    # Every step sees all the data, so that only dropout can tell one key from another.
    other = _fit(method, joint, net.params, data, key=1, steps=4, chunk_size=2, batch_size=NUM)
    assert not np.allclose(result.history["objective"], other.history["objective"], rtol=1e-3)


@pytest.mark.x64
@all_methods
def test_exact_law_on_a_linear_gaussian_problem(method):
    structure = lg.BY_NAME["low rank"]
    problem = lg.draw(structure, 6, 40, seed=0)
    assert 0.05 * problem.largest_curvature < 1, "the problem is not one that these learning rates can solve"
    joint = lg.joint(structure, problem)
    start = lg.tree(jnp.zeros(6))
    result = _fit(method, joint, start, lg.data(problem), steps=1500, batch_size=40, chunk_size=1500)
    method.law(result.posterior, problem)


@all_methods
@pytest.mark.parametrize("step", [1, 6, 7], ids="step {}".format)
def test_stops_at_a_nan_and_keeps_the_last_good_state(method, step):
    # Steps are counted from 1; the chunks are 1-3, 4-6, 7-9, so that both ends of a chunk are met.
    joint, params = _joint(fails_at=step)
    # The update before the failing step led there, so the last good state is the one before that update.
    kept = max(step - 2, 0)
    with pytest.warns(RuntimeWarning, match=f"objective is nan at step {step}; .* keeps the state after step {kept}"):
        failed = _fit(method, joint, params, _data(), steps=9)
    assert failed.steps == kept
    assert f"at step {step};" in failed.stopped
    assert all(values.shape == (kept,) for values in failed.history.values())
    joint, params = _joint()
    good = _fit(method, joint, params, _data(), steps=max(kept, 3))
    assert np.array_equal(failed.history["objective"], good.history["objective"][:kept])
    assert _equal(failed.params, good.params if kept else params)
