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
import sampler_laws
import scipy.optimize
from flax import linen, nnx

import bayestl as btl


class Method(NamedTuple):
    """A method, how it is made, and its own exact law on linear-Gaussian problems."""

    name: str
    make: Callable[[btl.LogJoint], btl.Inference]
    law: Callable[[btl.Posterior, lg.Problem, float], None]
    """``(posterior, problem, u)``; u is the network's unit roundoff, 0 where it computes as precisely as all else."""


def point_at_posterior_mean(posterior: Any, problem: lg.Problem, u: float) -> None:
    # Heavy ball leaves 0.95^1000 of the start; Adam's last rates, which add up to 1e-4, leave some 1e-8.
    draw = jax.tree.map(lambda x: x[0], posterior.sample(jax.random.key(0), 1))
    error = np.abs(lg.flat(draw) - problem.mean)
    assert np.all(error <= 1e-7 * (1 + np.abs(problem.mean)) + shift(problem, u))


def mean_field_optimum(posterior: Any, problem: lg.Problem, u: float) -> None:
    # Independent Gaussians: the posterior mean, variances 1 / Lambda_ii. With 64 draws a step and rates that halve
    # every 100 steps, variances are left 3 % of noise at most, and means a tenth of a standard deviation. Rounding
    # touches a variance through the products of one column of X with itself, six factors (1 + u) each.
    variance = 1 / np.diag(np.linalg.inv(problem.covariance))
    np.testing.assert_allclose(lg.flat(posterior.variance), variance, rtol=0.1 + 6 * u)
    assert np.all(np.abs(lg.flat(posterior.mean) - problem.mean) < 0.1 * np.sqrt(variance) + shift(problem, u))


def data_emphasized_optimum(posterior: Any, problem: lg.Problem, u: float) -> None:
    # E_q of the mean negative log likelihood, and the divergence at the best scale of every block of the prior, over D.
    size, (mean, _) = len(problem.mean), problem.prior
    gram = problem.inputs.T @ problem.inputs / problem.noise**2
    precision = np.linalg.inv(problem.covariance) - gram
    is_divided = np.allclose(precision[:2, 2:], 0, atol=1e-6)
    blocks = [slice(0, 2), slice(2, size)] if is_divided else [slice(0, size)]

    def loss(x: np.ndarray) -> float:
        residual, r = problem.targets - problem.inputs @ x[:size], x[:size] - mean
        value = (residual @ residual / problem.noise**2 + np.exp(2 * x[size]) * np.trace(gram)) / 2 / len(residual)
        for block in blocks:
            inner = precision[block, block]
            ratio = r[block] @ inner @ r[block] / (np.exp(2 * x[size]) * np.trace(inner))
            value += len(inner) / (2 * size) * np.log1p(ratio)
        return float(value)

    end = np.append(lg.flat(posterior.mean), 0.5 * np.log(lg.flat(posterior.variance)[0]))
    best = scipy.optimize.minimize(loss, end, tol=1e-10).x
    # The noise of 64 draws a step, as in the mean-field case.
    assert abs(end[size] - best[size]) < 0.05 + 3 * u
    scale = np.sqrt(np.diag(problem.covariance))
    assert np.all(np.abs(end[:size] - best[:size]) < 0.1 * scale + shift(problem, u))


def posterior_itself(posterior: Any, problem: lg.Problem, u: float) -> None:
    # Noise as in the mean-field case, and rounding of a variance too; here of variances in the directions of the whole
    # posterior where they are furthest off.
    columns = [lg.flat(posterior.covariance_mv(lg.tree(jnp.asarray(e)))) for e in np.eye(len(problem.mean))]
    root = np.linalg.cholesky(np.linalg.inv(problem.covariance))
    np.testing.assert_allclose(np.linalg.eigvalsh(root.T @ np.stack(columns) @ root), 1, atol=0.15 + 6 * u)
    scale = np.sqrt(np.diag(problem.covariance))
    assert np.all(np.abs(lg.flat(posterior.mean) - problem.mean) < 0.1 * scale + shift(problem, u))


def iterates_of_sgd(posterior: Any, problem: lg.Problem, u: float) -> None:
    # Heavy ball with all the data, from 0 for 1500 steps, all of which but two were collected.
    gradient = np.linalg.inv(problem.covariance) / len(problem.inputs)
    way, velocity = [np.zeros(len(problem.mean))], 0.0
    for _ in range(1500):
        velocity = MOMENTUM * velocity + gradient @ (way[-1] - problem.mean)
        way.append(way[-1] - RATE * velocity)
    iterates = np.stack(way[3:])
    off = max(shift(problem._replace(mean=x), u) for x in way[:100]) if u else 0.0
    assert np.all(np.abs(lg.flat(posterior.mean) - iterates.mean(0)) < 1e-9 + off)
    # Iterates that are off by d move their variance by 2 d standard deviations and d^2 at most, and each of the last
    # three deviations by 2 d.
    last = iterates[-3:] - iterates.mean(0)
    wide = max(iterates.std(0).max(), np.abs(last).max())
    columns = [lg.flat(posterior.covariance_mv(lg.tree(jnp.asarray(e)))) for e in np.eye(len(problem.mean))]
    wanted = 0.5 * (np.diag(iterates.var(0)) + last.T @ last / 2) + 1e-3 * np.eye(len(problem.mean))
    np.testing.assert_allclose(np.stack(columns), wanted, rtol=0, atol=1e-9 + 4 * wide * off + 4 * off**2)


def shift(problem: lg.Problem, u: float) -> float:
    """How far from the posterior mean a network that rounds to ``u`` holds a method: five standard deviations.

    The gradient of the log likelihood is X^T (y - X theta) / noise^2. Roundings are taken as independent, of standard
    deviation u / sqrt(3) each (Higham and Mary 2019 show sums of them to grow so). Those of theta are shared by all
    examples. Each output has those of its row of X, of its n products and n partial sums, and its own; then come those
    of the residual, of X again, and of their products. An error e of the gradient moves the rest point by Lambda^-1 e.
    While theta moves e changes, and heavy ball may answer with more: the sum of the sizes of its response to one push,
    over the size of its response at rest. Adam's rates die out.
    """
    inputs, theta = problem.inputs, problem.mean
    products = np.sum((inputs * theta) ** 2, axis=1)
    partial = np.sum(np.cumsum(inputs * theta, axis=1) ** 2, axis=1)
    residual = (problem.targets - inputs @ theta) ** 2
    gram = inputs.T @ inputs
    shared = gram @ np.diag(theta**2) @ gram
    apart = inputs.T @ np.diag(2 * products + partial + (inputs @ theta) ** 2 + 3 * residual) @ inputs
    moved = problem.covariance @ (shared + apart) @ problem.covariance * (u**2 / 3) / problem.noise**4
    curvatures = np.linalg.eigvalsh(np.linalg.inv(problem.covariance)) / len(inputs)
    answer = max(_total_response(h) * h for h in curvatures)
    return float(5 * answer * np.sqrt(np.trace(moved)))


def _total_response(curvature: float) -> float:
    position, velocity, push, total = 0.0, 0.0, 1.0, 0.0
    for _ in range(2000):
        velocity = MOMENTUM * velocity + curvature * position - push
        position -= RATE * velocity
        push, total = 0.0, total + abs(position)
    return total


RATE, MOMENTUM = 0.05, 0.9
SGD = optax.sgd(RATE, momentum=MOMENTUM)
ADAM = optax.adam(optax.exponential_decay(0.1, 100, 0.5))
NEWTON = optax.exponential_decay(0.3, 200, 0.5)

METHODS = [
    Method("map_estimate, sgd", lambda joint: btl.infer.map_estimate(joint, SGD), point_at_posterior_mean),
    Method("map_estimate, adam", lambda joint: btl.infer.map_estimate(joint, ADAM), point_at_posterior_mean),
    Method(
        "proximal_map", lambda joint: btl.infer.proximal_map(joint, RATE, momentum=MOMENTUM), point_at_posterior_mean
    ),
    Method(
        "mean_field_vi",
        lambda joint: btl.infer.mean_field_vi(joint, ADAM, num_samples=64, initial_scale=0.2),
        mean_field_optimum,
    ),
    Method(
        "low_rank_vi",
        lambda joint: btl.infer.low_rank_vi(joint, ADAM, rank=5, num_samples=64, initial_scale=0.2),
        posterior_itself,
    ),
    Method(
        "data_emphasized_elbo",
        lambda joint: btl.tune.data_emphasized_elbo(joint, ADAM, num_samples=64, initial_scale=0.2),
        data_emphasized_optimum,
    ),
    Method(
        "ivon",
        lambda joint: btl.infer.ivon(joint, NEWTON, hessian_decay=0.99, num_samples=64),
        mean_field_optimum,
    ),
    Method("swag", lambda joint: btl.infer.swag(joint, SGD, rank=3, start=2, every=1, eps=1e-3), iterates_of_sgd),
    # Each against the exact law of its path, full-batch and in discrete time.
    *(
        Method(name, make, lambda posterior, problem, u, law=law: law(posterior, problem, shift(problem, u)))
        for name, make, law in sampler_laws.SAMPLERS
    ),
]


class Precision(NamedTuple):
    """What a network computes in: how it is made to, and its unit roundoff beside that of all else."""

    name: str
    cast: Callable[[btl.Net], btl.Net]
    roundoff: float


PRECISIONS = [
    Precision("full precision", lambda net: net, 0.0),
    Precision("bfloat16", lambda net: btl.nets.cast(net, jnp.bfloat16), 2.0**-8),
]
# Every law is checked in bfloat16 too, all else for one method of each kind: the others see the network as these do.
IN_BFLOAT16 = ("map_estimate, sgd", "map_estimate, adam", "proximal_map", "mean_field_vi", "low_rank_vi", "sgld")
# It sees the network as mean_field_vi does, and its own file holds its laws: here in ``make test-all``.
LATER = ("data_emphasized_elbo",)
EVERY_PRIOR_HERE = ("proximal_map", "swag", "cyclical_sgld", "cyclical_sghmc")
assert set((*IN_BFLOAT16, *LATER, *EVERY_PRIOR_HERE)) <= {method.name for method in METHODS}
RUNS = [(m, p) for m in METHODS for p in PRECISIONS if p.roundoff == 0 or m.name in IN_BFLOAT16]
_every_run = pytest.mark.parametrize(("method", "precision"), RUNS, ids=lambda x: x.name)
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


def _joint(precision: Precision, scale: float = 1.0, fails_at: int = 0) -> tuple[btl.LogJoint, Any]:
    state = {"count": jnp.int32(1), "fails_at": jnp.int32(fails_at)}
    net = precision.cast(btl.Net(_tree(jnp.linspace(-1.0, 1.0, SIZE)), state, _apply))
    prior = btl.gaussians.isotropic(net.params, scale)
    return btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=NUM), net.params


def _data(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return btl.data.arrays(rng.normal(size=(NUM, SIZE)), rng.normal(size=NUM))


def _fit(method: Method, joint: btl.LogJoint, params: Any, data: Any, key: int = 0, **changes: Any) -> btl.FitResult:
    settings = {"steps": 7, "batch_size": 8, "chunk_size": 3, "progress": False, **changes}
    return btl.fit(jax.random.key(key), method.make(joint), params, data, **settings)


def _equal(x: Any, y: Any) -> bool:
    """Bit for bit."""
    same = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), x, y)
    return all(jax.tree.leaves(same))


@pytest.mark.representative(
    *(f"{method.name}-full precision" for method in METHODS if method.name not in LATER),
    *("map_estimate, sgd-bfloat16", "mean_field_vi-bfloat16"),
)
@_every_run
def test_keeps_the_tree_and_compiles_once(method, precision):
    joint, params = _joint(precision)
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
    other, params = _joint(precision, scale=2.0)
    compiled = len(COMPILED)
    again = _fit(method, other, params, _data(seed=1))
    assert len(COMPILED) == compiled
    assert not _equal(again.params, result.params)


@pytest.mark.optimized  # bits of two programs: XLA gives them when it optimises both
@pytest.mark.representative(
    *(f"{name}-full precision" for name in ("map_estimate, sgd", "mean_field_vi", "swag", "sgld", "cyclical_sghmc")),
    "map_estimate, sgd-bfloat16",
)
@_every_run
def test_the_key_decides_and_the_chunks_do_not(method, precision):
    joint, params = _joint(precision)
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


@pytest.mark.representative(
    *(f"{name}-full precision" for name in ("map_estimate, sgd", "mean_field_vi", "ivon", "swag", "sghmc")),
    "mean_field_vi-bfloat16",
)
@_every_run
def test_carries_the_networks_state_and_randomness(method, precision):
    data = _data()
    module = _Dropping()
    variables = module.init(jax.random.key(0), data.inputs)
    net = btl.nets.from_linen(module, variables, train={"train": True}, evaluate={"train": False})
    net = btl.nets.trained_state(precision.cast(net))
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


def _law_runs() -> list[Any]:
    """Every law in full precision; in bfloat16 that of one method in ``make test``, and of all in ``make test-all``."""
    slow = pytest.mark.slow
    return [
        pytest.param(
            m,
            p,
            id=f"{m.name}-{p.name}",
            marks=[slow] if (p.roundoff and m is not METHODS[0]) or m.name in LATER else [],
        )
        for m in METHODS
        for p in PRECISIONS
    ]


@pytest.mark.x64
@pytest.mark.parametrize(("method", "precision"), _law_runs())
def test_exact_law_on_a_linear_gaussian_problem(method, precision):
    structure = lg.BY_NAME["low rank"]
    problem = lg.draw(structure, 6, 40, seed=0)
    assert 0.05 * problem.largest_curvature < 1, "the problem is not one that these learning rates can solve"
    joint = lg.joint(structure, problem, precision.cast)
    start = lg.tree(jnp.zeros(6))
    result = _fit(method, joint, start, lg.data(problem), steps=1500, batch_size=40, chunk_size=1500)
    method.law(result.posterior, problem, precision.roundoff)


# The laws of the others under every prior but this one are in files of their own.
OTHER_PRIORS = [
    (method, structure)
    for method in METHODS
    for structure in (*lg.STRUCTURES, lg.KRONECKER)
    if structure is lg.KRONECKER or (method.name in EVERY_PRIOR_HERE and structure.name != "low rank")
]


@pytest.mark.x64
@pytest.mark.representative(
    *("map_estimate, adam-kronecker", "proximal_map-dense", "mean_field_vi-kronecker", "low_rank_vi-kronecker"),
    *("swag-blocks", "sghmc-kronecker", "cyclical_sgld-isotropic", "cyclical_sgld-blocks", "cyclical_sghmc-diagonal"),
)
@pytest.mark.parametrize(("method", "structure"), OTHER_PRIORS, ids=lambda x: x.name)
def test_exact_law_under_every_other_prior(method, structure):
    problem = lg.draw(structure, 6, 40, seed=0)
    assert 0.05 * problem.largest_curvature < 1, "the problem is not one that these learning rates can solve"
    run = {"steps": 1500, "batch_size": 40, "chunk_size": 1500}
    result = _fit(method, lg.joint(structure, problem), lg.tree(jnp.zeros(6)), lg.data(problem), **run)
    method.law(result.posterior, problem, 0.0)


def _failing_runs() -> list[Any]:
    """Every method at the last step of a chunk; at the first of a run and of a chunk one in ``make test``."""
    slow = pytest.mark.slow
    return [
        pytest.param(
            m,
            p,
            step,
            id=f"{m.name}-{p.name}-{step}",
            marks=[slow] if (step != 6 and m is not METHODS[0]) or m.name in LATER else [],
        )
        for m, p in RUNS
        for step in (1, 6, 7)
    ]


@pytest.mark.parametrize(("method", "precision", "step"), _failing_runs())
def test_stops_at_a_nan_and_keeps_the_last_good_state(method, precision, step):
    # Steps are counted from 1; the chunks are 1-3, 4-6, 7-9, so that both ends of a chunk are met.
    joint, params = _joint(precision, fails_at=step)
    # The update before the failing step led there, so the last good state is the one before that update.
    kept = max(step - 2, 0)
    with pytest.warns(RuntimeWarning, match=f"objective is nan at step {step}; .* keeps the state after step {kept}"):
        failed = _fit(method, joint, params, _data(), steps=9)
    assert failed.steps == kept
    assert f"at step {step};" in failed.stopped
    assert all(values.shape == (kept,) for values in failed.history.values())
    joint, params = _joint(precision)
    good = _fit(method, joint, params, _data(), steps=max(kept, 3))
    assert np.array_equal(failed.history["objective"], good.history["objective"][:kept])
    assert _equal(failed.params, good.params if kept else params)
