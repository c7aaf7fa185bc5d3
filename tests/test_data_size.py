"""How many data there are: taken from the data where a log joint was not told, compared with them where it was."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl

NUM, SIZE, NOISE = 20, 2, 0.5
_RNG = np.random.default_rng(0)
INPUTS, TARGETS = _RNG.normal(size=(NUM, SIZE)).astype(np.float32), _RNG.normal(size=NUM).astype(np.float32)
KEY = jax.random.key(0)
RUN: dict[str, Any] = {"steps": 3, "batch_size": 5, "progress": False}


def _apply(params: Any, inputs: jax.Array) -> jax.Array:
    return inputs @ params["w"]


NET = btl.nets.from_function(_apply, {"w": jnp.zeros(SIZE)})
PRIOR = btl.gaussians.isotropic(NET.params, 1.0)
DATA = btl.data.arrays(INPUTS, TARGETS)
OPTIMIZER = optax.sgd(1e-2)
PRECISION = INPUTS.astype(np.float64).T @ INPUTS / NOISE**2 + np.eye(SIZE)


def _joint(**changes: Any) -> btl.LogJoint:
    return btl.LogJoint(NET, btl.likelihoods.normal(NOISE), PRIOR, **changes)


def _silently(function: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function()


METHODS = {
    "map_estimate": lambda joint: btl.infer.map_estimate(joint, OPTIMIZER),
    "proximal_map": lambda joint: btl.infer.proximal_map(joint, 1e-2),
    "mean_field_vi": lambda joint: btl.infer.mean_field_vi(joint, OPTIMIZER),
    "low_rank_vi": lambda joint: btl.infer.low_rank_vi(joint, OPTIMIZER, rank=1),
    "ivon": lambda joint: btl.infer.ivon(joint, 1e-2),
    "swag": lambda joint: btl.infer.swag(joint, OPTIMIZER, every=1, start=0, rank=2, eps=1e-3),
    "sgld": lambda joint: btl.infer.sgld(joint, 1e-3, num_samples=2),
    "sghmc": lambda joint: btl.infer.sghmc(joint, 1e-3, num_samples=2),
    "cyclical_sgld": lambda joint: btl.infer.cyclical_sgld(joint, 1e-3, cycle_length=4, exploration=0.5, num_samples=2),
}


FEW = ("map_estimate", "ivon", "sgld")


@pytest.mark.parametrize("name", [x if x in FEW else pytest.param(x, marks=pytest.mark.slow) for x in METHODS])
def test_a_run_takes_the_number_from_its_data(name):
    told, not_told = (
        _silently(lambda options=options: btl.fit(KEY, METHODS[name](_joint(**options)), NET.params, DATA, **RUN))
        for options in ({"num_data": NUM}, {})
    )
    same = jax.tree.map(np.array_equal, (told.state, told.posterior), (not_told.state, not_told.posterior))
    assert all(jax.tree.leaves(same))


def test_the_posterior_mean_is_that_of_all_data():
    """Against the closed form: with another N the prior would weigh more or less."""
    method = btl.infer.map_estimate(_joint(), optax.sgd(0.05))
    fitted = btl.fit(KEY, method, NET.params, DATA, steps=500, batch_size=NUM, progress=False)
    mean = np.linalg.solve(PRECISION, INPUTS.T @ TARGETS / NOISE**2)
    np.testing.assert_allclose(fitted.params["w"], mean, rtol=1e-4)


def test_members_and_memory_take_it_too():
    def make(rate: Any) -> btl.Inference:
        return btl.infer.map_estimate(_joint(), optax.sgd(rate))

    rates, keys = jnp.array([0.01, 0.05]), jax.random.split(KEY, 2)
    many = _silently(lambda: btl.fit_many(keys, make, rates, NET.params, DATA, **RUN))
    alone = btl.fit(keys[1], make(rates[1]), NET.params, DATA, **RUN)
    np.testing.assert_allclose(many.params["w"][1], alone.params["w"], rtol=1e-5)
    told = btl.infer.map_estimate(_joint(num_data=NUM), optax.sgd(0.01))
    estimates = [btl.estimate_memory(method, NET.params, DATA) for method in (told, make(0.01))]
    assert estimates[0] == estimates[1]


def test_laplace_and_the_evidence_take_it_from_weighted_data():
    """Closed forms, each row twice by its weight."""
    batch = btl.Batch(jnp.asarray(INPUTS), jnp.asarray(TARGETS), jnp.full(NUM, 2.0))
    precision = 2 * (PRECISION - np.eye(SIZE)) + np.eye(SIZE)
    mode = np.linalg.solve(precision, 2 * INPUTS.astype(np.float64).T @ TARGETS / NOISE**2)
    params = {"w": jnp.asarray(mode, jnp.float32)}
    posterior = _silently(lambda: btl.infer.laplace(KEY, _joint(), params, batch))
    np.testing.assert_allclose(posterior.variance["w"], np.diag(np.linalg.inv(precision)), rtol=1e-5)
    x, y = np.repeat(INPUTS, 2, axis=0).astype(np.float64), np.repeat(TARGETS, 2).astype(np.float64)
    covariance = x @ x.T + NOISE**2 * np.eye(2 * NUM)
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    evidence = -0.5 * (y @ np.linalg.solve(covariance, y) + log_det)
    np.testing.assert_allclose(btl.infer.log_evidence(KEY, _joint(), params, batch), evidence, rtol=1e-5)
    scales = btl.infer.scale_evidence(KEY, _joint(), params, batch)
    np.testing.assert_allclose(scales(jnp.zeros(1)), evidence, rtol=1e-5)
    assert btl.diagnostics.left_out(KEY, _joint(), posterior, batch) < 1e-3
    # The approximation is exact, so that every draw has the same weight: the evidence.
    draws = posterior.sample(KEY, 3)
    weights = btl.diagnostics.log_importance_weights(_joint(), posterior, draws, batch)
    np.testing.assert_allclose(weights, evidence, rtol=1e-4)


USERS = {
    "fit": lambda joint, data: btl.fit(KEY, METHODS["map_estimate"](joint), NET.params, data, **RUN),
    "fit_many": lambda joint, data: btl.fit_many(
        jax.random.split(KEY, 2), lambda _: METHODS["map_estimate"](joint), jnp.zeros(2), NET.params, data, **RUN
    ),
    "ensemble": lambda joint, data: btl.infer.ensemble(
        KEY, joint, {"w": jnp.zeros((2, SIZE))}, data, METHODS["map_estimate"], **RUN
    ),
    "laplace": lambda joint, data: btl.infer.laplace(KEY, joint, NET.params, data),
    "log_evidence": lambda joint, data: btl.infer.log_evidence(KEY, joint, NET.params, data),
    "scale_evidence": lambda joint, data: btl.infer.scale_evidence(KEY, joint, NET.params, data),
    "left_out": lambda joint, data: btl.diagnostics.left_out(KEY, joint, PRIOR, data),
    "log_importance_weights": lambda joint, data: btl.diagnostics.log_importance_weights(
        joint, PRIOR, {"w": jnp.zeros((1, SIZE))}, data
    ),
}


@pytest.mark.parametrize(
    "name", [x if x in ("fit", "fit_many", "laplace") else pytest.param(x, marks=pytest.mark.slow) for x in USERS]
)
def test_another_number_than_that_of_the_data_is_told(name):
    with pytest.warns(UserWarning, match="num_data is 1000 and the data have 20 examples.* counts 50 times") as caught:
        USERS[name](_joint(num_data=1000), DATA)
    assert len(caught) == 1
    _silently(lambda: USERS[name](_joint(num_data=1000, allow_other_size=True), DATA))
    _silently(lambda: USERS[name](_joint(num_data=NUM), DATA))


def test_streams_and_parts_of_the_parameters():
    stream = btl.data.stream(range(NUM), lambda row: (INPUTS[row], TARGETS[row]))
    net = btl.nets.from_function(lambda p, x: x @ p["w"] + p["b"], {"b": jnp.zeros(()), "w": jnp.zeros(SIZE)})
    prior = btl.gaussians.isotropic(net.params, 1.0)
    for options, expected in (({"num_data": 7}, True), ({"num_data": 7, "allow_other_size": True}, False), ({}, False)):
        joint = btl.LogJoint(net, btl.likelihoods.normal(NOISE), prior, **options)
        part = btl.infer.condition(joint, net.params, "w")
        method = btl.infer.map_estimate(part.joint, OPTIMIZER)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            btl.fit(KEY, method, part.params, stream, **RUN)
        assert any("num_data is 7" in str(warning.message) for warning in caught) == expected


def test_a_density_without_data_needs_the_number():
    joint, batch = _joint(), btl.Batch(jnp.asarray(INPUTS), jnp.asarray(TARGETS))
    for density in (lambda: joint(NET.params, batch), lambda: joint.loss(NET.params, batch)):
        with pytest.raises(ValueError, match="num_data was not given to LogJoint"):
            density()
    with pytest.raises(ValueError, match="num_data"):
        _joint(num_data=0)
