"""The mode is the exact posterior mean where that is known; without a prior it is plain fine-tuning, step for step."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import bayestl as btl

HEAVY_BALL = optax.sgd(0.05, momentum=0.9)


def _fit(inference, params, data, **changes):
    settings = {"steps": 600, "batch_size": data.num_examples, "chunk_size": 600, "progress": False, **changes}
    return btl.fit(jax.random.key(0), inference, params, data, **settings)


# ---------------------------------------------------------------- known answers


@pytest.mark.x64
@pytest.mark.parametrize(
    ("answer", "prior", "kappa"),
    [
        ("low_rank_prior", "low rank", 1.0),
        ("low_rank_prior_likelihood_power_2", "low rank", 2.0),
        ("isotropic_prior_variance_2", "isotropic", 1.0),
        ("isotropic_variance_2_zero_mean", "zero mean", 1.0),
    ],
)
def test_fixture(answer, prior, kappa):
    structure, problem = lg.fixture_problem(prior, kappa)
    truth = np.array(lg.FIXTURE[answer]["mean"])
    np.testing.assert_allclose(problem.mean, truth, rtol=1e-12)
    joint = lg.joint(structure, problem, kappa=kappa)
    fitted = _fit(btl.infer.map_estimate(joint, HEAVY_BALL), lg.tree(jnp.zeros(3)), lg.data(problem))
    np.testing.assert_allclose(lg.flat(fitted.params), truth, rtol=1e-9)
    # The first step was taken at zero: there the fixture knows the low-rank prior's density, with its normaliser.
    residual = (problem.targets / problem.noise) ** 2
    nll = np.mean(0.5 * residual + np.log(problem.noise) + 0.5 * np.log(2 * np.pi))
    mean, covariance = problem.prior[0], structure.covariance(problem.prior[1])
    energy = -0.5 * mean @ np.linalg.solve(covariance, mean)
    np.testing.assert_allclose(fitted.history["nll"][0], nll, rtol=1e-12)
    np.testing.assert_allclose(fitted.history["log_prior"][0], energy, rtol=1e-12)
    np.testing.assert_allclose(fitted.history["objective"][0], nll - energy / (kappa * 4), rtol=1e-12)
    if prior == "low rank":
        normaliser = -0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
        np.testing.assert_allclose(energy + normaliser, lg.FIXTURE["low_rank_prior_log_prob_at_zero"], rtol=1e-12)


SIZE, PROBLEMS = 50, 17


@pytest.mark.representative("low rank", "blocks")
@pytest.mark.x64
@pytest.mark.parametrize("structure", lg.STRUCTURES, ids=lambda structure: structure.name)
def test_random_problems(structure):
    problems = [lg.draw(structure, SIZE, 2 * SIZE, seed) for seed in range(PROBLEMS)]

    def method(problem):
        optimizer = optax.sgd(1 / problem.largest_curvature, momentum=0.9)
        return btl.infer.map_estimate(lg.joint(structure, problem), optimizer)

    keys = jax.random.split(jax.random.key(0), PROBLEMS)
    many = lg.stacked(problems)
    start = lg.tree(jnp.zeros(SIZE))
    settings = {"steps": 600, "batch_size": 2 * SIZE, "chunk_size": 600, "progress": False, "data_axis": 0}
    fitted = btl.fit_many(keys, method, many, start, lg.stacked_data(many), **settings)
    found = np.stack([lg.flat(jax.tree.map(lambda x, m=m: x[m], fitted.params)) for m in range(PROBLEMS)])
    # Heavy ball contracts by sqrt(0.9) a step, 2e-14 in all, where the condition number is below 1400, as it is here.
    np.testing.assert_allclose(found, many.mean, rtol=0, atol=1e-9)


def test_there_are_a_hundred_random_problems():
    assert len(lg.STRUCTURES) * PROBLEMS >= 100


@pytest.mark.x64
def test_an_optimizer_with_a_line_search():
    structure, problem = lg.fixture_problem("low rank")
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=15, store_grad=True)
    inference = btl.infer.map_estimate(lg.joint(structure, problem), optax.chain(optax.sgd(1.0), search))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = _fit(inference, lg.tree(jnp.zeros(3)), lg.data(problem), steps=200)
    np.testing.assert_allclose(lg.flat(fitted.params), problem.mean, rtol=1e-6)


# ---------------------------------------------------------------- no prior


def _classes(params, inputs):
    return jnp.tanh(inputs @ params["body"]) @ params["head"]


def _classification():
    rng = np.random.default_rng(0)
    data = btl.data.arrays(rng.normal(size=(50, 4)), rng.integers(0, 3, size=50))
    params = {"body": jnp.array(rng.normal(size=(4, 5))), "head": jnp.array(rng.normal(size=(5, 3)))}
    return data, params, btl.nets.from_function(_classes, params)


def _plain_fine_tuning(params, data, key, steps):
    """A loop as anybody would write it, on the batches of the run's key."""
    order = jax.random.split(key, 3)[1]

    def loss(params, batch):
        scores = _classes(params, batch.inputs)
        return optax.softmax_cross_entropy_with_integer_labels(scores, batch.targets).mean()

    def step(carry, i):
        params, opt_state = carry
        value, gradient = jax.value_and_grad(loss)(params, data.batch(order, i, 16))
        updates, opt_state = HEAVY_BALL.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    (params, _), losses = jax.lax.scan(step, (params, HEAVY_BALL.init(params)), jnp.arange(steps))
    return params, losses


@pytest.mark.x64
def test_flat_prior_is_plain_fine_tuning_and_a_wide_one_agrees():
    data, params, net = _classification()
    truth, losses = jax.jit(lambda params: _plain_fine_tuning(params, data, jax.random.key(0), 100))(params)

    def run(prior):
        joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=50)
        inference = btl.infer.map_estimate(joint, HEAVY_BALL)
        return _fit(inference, params, data, steps=100, batch_size=16, chunk_size=100)

    moved = np.linalg.norm(ravel_pytree(truth)[0] - ravel_pytree(params)[0])
    assert moved > 0.1
    plain = run(None)
    # The two programs may round differently, 1e-16 a step; training is not chaotic over 100 steps.
    np.testing.assert_allclose(ravel_pytree(plain.params)[0], ravel_pytree(truth)[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(plain.history["objective"], losses, rtol=1e-11)
    np.testing.assert_array_equal(plain.history["log_prior"], 0)
    wide = run(btl.gaussians.isotropic(jax.tree.map(jnp.zeros_like, params), 1e10))
    np.testing.assert_allclose(ravel_pytree(wide.params)[0], ravel_pytree(plain.params)[0], rtol=0, atol=1e-6)


# ---------------------------------------------------------------- the start


def _inference(optimizer=HEAVY_BALL, prior_of=lambda params: btl.gaussians.isotropic(params, 1.0), **settings):
    params = {"bias": jnp.zeros(()), "kernel": jnp.zeros(2)}
    net = btl.nets.from_function(lambda params, inputs: inputs @ params["kernel"] + params["bias"], params)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior_of(params), num_data=3)
    return btl.infer.map_estimate(joint, optimizer, **settings), params


def test_starts_in_float32():
    inference, params = _inference()
    state = inference.init(jax.random.key(0), jax.tree.map(lambda x: x.astype(jnp.float16), params))
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_refuses_a_start_that_is_not_finite_or_not_the_priors():
    inference, params = _inference()
    with pytest.raises(ValueError, match="params at 'kernel' has 1 non-finite of 2 values; the start must be finite"):
        inference.init(jax.random.key(0), {**params, "kernel": jnp.array([1.0, jnp.nan])})
    with pytest.raises(ValueError, match=r"params and prior differ at 'kernel': \(3,\) against \(2,\).*sources.match"):
        inference.init(jax.random.key(0), {**params, "kernel": jnp.zeros(3)})
    with pytest.raises(TypeError, match="params at 'kernel' has dtype int32"):
        inference.init(jax.random.key(0), {**params, "kernel": jnp.zeros(2, int)})


# ---------------------------------------------------------------- weight decay beside a prior

WARM_UP = optax.warmup_cosine_decay_schedule(0.0, 1e-3, warmup_steps=100, decay_steps=1000)
DECAYING = {
    "adamw": optax.adamw(1e-3),
    "adamw, warming up": optax.adamw(WARM_UP, weight_decay=1e-4),
    "adamw on kernels": optax.adamw(1e-3, mask=lambda params: jax.tree.map(lambda x: x.ndim > 0, params)),
    "sgd with decay": optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1)),
    "lion": optax.lion(1e-3),
}
NOT_DECAYING = {
    "sgd": optax.sgd(0.1),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(1e-3),
    "adam, warming up": optax.adam(WARM_UP),
    "adamw without decay": optax.adamw(1e-3, weight_decay=0.0),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-3)),
}


def _warnings(inference, params):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inference.init(jax.random.key(0), params)
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


@pytest.mark.parametrize("name", DECAYING)
def test_warns_of_weight_decay(name):
    inference, params = _inference(DECAYING[name])
    (message,) = _warnings(inference, params)
    assert "when the gradient is zero: weight decay, which acts as a second prior" in message
    assert "optax.adam" in message
    assert "allow_weight_decay=True" in message
    assert not _warnings(*_inference(DECAYING[name], allow_weight_decay=True))
    assert not _warnings(*_inference(DECAYING[name], prior_of=lambda params: None))


@pytest.mark.parametrize("name", NOT_DECAYING)
def test_does_not_warn_without_weight_decay(name):
    assert not _warnings(*_inference(NOT_DECAYING[name]))
