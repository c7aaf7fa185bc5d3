"""A posterior of a part of the parameters, the rest held fixed, against dense algebra on linear-Gaussian problems."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl
from bayestl import predict
from bayestl.posteriors import Part

NUM, SIZE, BODY = 12, 6, 4
KEY = jax.random.key(0)
HEAD = slice(BODY, SIZE)


class Problem(NamedTuple):
    """``y = X theta + noise`` of unit variance under a correlated prior, all in numpy, and values of the body."""

    inputs: np.ndarray
    targets: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    body: np.ndarray


def _problem() -> Problem:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(SIZE, SIZE))
    covariance = root @ root.T / SIZE + 0.1 * np.eye(SIZE)
    inputs, targets = rng.normal(size=(NUM, SIZE)), rng.normal(size=NUM)
    return Problem(inputs, targets, rng.normal(size=SIZE), covariance, rng.normal(size=BODY))


def _given_body(p: Problem, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the head given the body and some of the data."""
    prior = np.linalg.inv(p.covariance)
    precision = p.inputs[rows].T @ p.inputs[rows] + prior
    natural = p.inputs[rows].T @ p.targets[rows] + prior @ p.mean
    covariance = np.linalg.inv(precision[HEAD, HEAD])
    return covariance @ (natural[HEAD] - precision[HEAD, :BODY] @ p.body), covariance


def _tree(body: Any, head: Any) -> dict[str, jax.Array]:
    return {"body": jnp.asarray(body), "head": jnp.asarray(head)}


def _network(params: Any, inputs: jax.Array) -> jax.Array:
    return inputs @ jnp.concatenate([params["body"], params["head"]])


NET = btl.nets.from_function(_network, _tree(jnp.zeros(BODY), jnp.zeros(SIZE - BODY)))


def _joint(p: Problem, prior: Any = None, rows: slice = slice(NUM)) -> btl.LogJoint:
    if prior is None:
        prior = btl.gaussians.dense(_tree(p.mean[:BODY], p.mean[HEAD]), jnp.asarray(p.covariance))
    return btl.LogJoint(NET, btl.likelihoods.normal(1.0), prior, num_data=len(p.targets[rows]))


def _data(p: Problem, rows: slice = slice(NUM)) -> Any:
    return btl.data.arrays(p.inputs[rows], p.targets[rows])


def _laplace(p: Problem, joint: btl.LogJoint, rows: slice, mode: np.ndarray) -> Any:
    return btl.infer.laplace(KEY, joint, _tree(p.body, mode), _data(p, rows), selection="head")


@pytest.mark.x64
def test_moments_and_draws_of_the_whole_are_those_of_dense_algebra():
    p = _problem()
    mean, covariance = _given_body(p, slice(NUM))
    posterior = _laplace(p, _joint(p), slice(NUM), mean)
    np.testing.assert_allclose(posterior.mean["body"], p.body)
    np.testing.assert_allclose(posterior.mean["head"], mean, rtol=1e-10)
    np.testing.assert_allclose(posterior.variance["body"], np.zeros(BODY))
    np.testing.assert_allclose(posterior.variance["head"], np.diag(covariance), rtol=1e-10)
    columns = jax.vmap(posterior.covariance_mv)(_tree(np.eye(SIZE)[:, :BODY], np.eye(SIZE)[:, HEAD]))
    np.testing.assert_allclose(columns["head"][BODY:], covariance, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(columns["body"], np.zeros((SIZE, BODY)))
    draws = posterior.sample(KEY, 4000)
    np.testing.assert_array_equal(draws["body"], np.tile(p.body, (4000, 1)))
    # Five standard errors of a mean, and of a covariance of normal draws.
    white = np.linalg.solve(np.linalg.cholesky(covariance), (np.asarray(draws["head"]) - mean).T)
    np.testing.assert_allclose(white.mean(axis=1), np.zeros(2), atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(white @ white.T / 4000, np.eye(2), atol=5 * np.sqrt(2 / 4000))


@pytest.mark.x64
def test_as_the_prior_of_a_second_half_it_gives_the_posterior_of_both():
    p, first, second = _problem(), slice(0, 5), slice(5, NUM)
    yesterday = _laplace(p, _joint(p, rows=first), first, _given_body(p, first)[0])
    mean, covariance = _given_body(p, slice(NUM))
    joint = _joint(p, prior=yesterday, rows=second)
    today = _laplace(p, joint, second, mean)
    np.testing.assert_allclose(today.part.covariance(), covariance, rtol=1e-10, atol=1e-12)
    # The mean that dense algebra gives is where the density's gradient vanishes.
    head = btl.infer.condition(joint, today.mean, "head")
    batch = btl.Batch(jnp.asarray(p.inputs[second]), jnp.asarray(p.targets[second]))
    np.testing.assert_allclose(jax.grad(head.joint)(head.params, batch)["head"], np.zeros(2), atol=1e-10)
    assert head.joint.prior is yesterday.part


@pytest.mark.x64
def test_a_part_of_a_part_is_conditioned_again():
    covariance = np.array([[2.0, 0.6, 0.3], [0.6, 1.0, 0.2], [0.3, 0.2, 0.5]])
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1), "c": jnp.zeros(1)}
    whole = btl.gaussians.dense(params, jnp.asarray(covariance))
    values = {"a": jnp.ones(1), "b": jnp.full(1, 2.0), "c": jnp.full(1, 3.0)}
    part = Part(whole.condition(values, ["a", "b"]), {"a": None, "b": None, "c": values["c"]})
    given: Any = part.condition(values, "a")
    others = covariance[1:, 1:]
    mean = covariance[0, 1:] @ np.linalg.solve(others, [2.0, 3.0])
    variance = covariance[0, 0] - covariance[0, 1:] @ np.linalg.solve(others, covariance[1:, 0])
    np.testing.assert_allclose(given.mean["a"], [mean], rtol=1e-10)
    np.testing.assert_allclose(given.variance["a"], [variance], rtol=1e-10)
    assert given.mean["b"] is None
    np.testing.assert_allclose(part.rescale(4.0).variance["a"], 4 * part.variance["a"], rtol=1e-10)
    np.testing.assert_allclose(part.inflate(0.5).variance["b"], part.variance["b"] + 0.5, rtol=1e-10)


# ---------------------------------------------------------------- every pair


def _posteriors(p: Problem) -> dict[str, Any]:
    mean, covariance = _given_body(p, slice(NUM))
    bare = btl.gaussians.dense({"body": None, "head": jnp.asarray(mean)}, jnp.asarray(covariance))
    rest = {"body": jnp.asarray(p.body), "head": None}
    samples = btl.Samples(bare.sample(KEY, 3), jnp.log(jnp.array([1.0, 2.0, 3.0])))
    return {
        "whole": btl.gaussians.isotropic(_tree(p.body, mean), 0.1),
        "part": Part(bare, rest),
        "part, draws": Part(samples, rest),
        "part, point": Part(btl.Point(bare.mean), rest),
        "mixture of parts": btl.Mixture((Part(bare, rest), Part(bare.rescale(2.0), rest)), jnp.zeros(2)),
        "bare": bare,
        "bare, draws": samples,
        "bare, point": btl.Point(bare.mean),
    }


@pytest.mark.x64
@pytest.mark.parametrize("name", list(_posteriors(_problem())))
def test_every_pair_of_log_joint_and_posterior_predicts_or_says_why_not(name):
    p = _problem()
    whole, posterior = _joint(p), _posteriors(p)[name]
    head = btl.infer.condition(whole, _tree(p.body, jnp.zeros(2)), "head").joint
    inputs = jnp.asarray(p.inputs[:3])
    num = None if "draws" in name or "point" in name else 5
    ways = {
        "monte_carlo": lambda joint: predict.monte_carlo(KEY, joint, posterior, num),
        "monte_carlo_average": lambda joint: predict.monte_carlo_average(KEY, joint, posterior, num),
        "linearized": lambda joint: predict.linearized(joint, posterior),
    }
    if "mixture" not in name:
        ways["linearized_joint"] = lambda joint: predict.linearized_joint(joint, posterior)
    for way, make in ways.items():
        if "linearized" in way and ("draws" in name or "point" in name):
            with pytest.raises(TypeError, match="a linearised network needs a Gaussian"):
                make(head)
            continue
        given = make(head)(inputs)
        if "bare" in name:
            with pytest.raises(ValueError, match="the posterior has none of 'body', and this log joint takes 'body'"):
                make(whole)
            continue
        # The log joint lends its network and likelihood alone, which are the same.
        np.testing.assert_allclose(make(whole)(inputs).mean, given.mean, rtol=1e-12)
    if name in ("part", "bare"):
        mean, covariance = _given_body(p, slice(NUM))
        x = p.inputs[:3]
        given = predict.linearized_joint(head, posterior)(inputs)
        np.testing.assert_allclose(given.mean, x[:, :BODY] @ p.body + x[:, HEAD] @ mean, rtol=1e-10)
        expected = x[:, HEAD] @ covariance @ x[:, HEAD].T
        np.testing.assert_allclose(given.function_covariance(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.x64
def test_every_pair_is_compared_with_its_target_or_says_why_not():
    p = _problem()
    whole, found = _joint(p), _posteriors(p)
    conditioned = btl.infer.condition(whole, _tree(p.body, jnp.zeros(2)), "head")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = [
            btl.diagnostics.report(KEY, joint, posterior, _data(p), num_samples=50).rows
            for joint, posterior in (
                (whole, found["part"]),
                (conditioned.joint, found["part"]),
                (conditioned.joint, found["bare"]),
            )
        ]
    # One posterior, in three ways of saying so; it is the exact one.
    for other in rows[1:]:
        assert [row.name for row in other] == [row.name for row in rows[0]]
        np.testing.assert_allclose([row.value for row in other], [row.value for row in rows[0]], rtol=1e-9)
    for joint, posterior in ((whole, found["bare"]), (conditioned.joint, found["whole"])):
        with pytest.raises(ValueError, match="the posterior and the log joint are of different parameters"):
            btl.diagnostics.report(KEY, joint, posterior, _data(p))
    elsewhere = Part(found["bare"], {"body": jnp.asarray(p.body) + 1, "head": None})
    with pytest.raises(ValueError, match=r"the fixed parameters of the log joint and the values .* differ at 'body'"):
        btl.diagnostics.report(KEY, conditioned.joint, elsewhere, _data(p))


@pytest.mark.x64
def test_whole_puts_what_a_method_gave_beside_what_was_fixed():
    p = _problem()
    whole = _joint(p)
    outer = btl.infer.condition(whole, _tree(p.body, jnp.zeros(2)), "head")
    found = _posteriors(p)
    posterior = outer.whole(found["bare"])
    np.testing.assert_array_equal(posterior.mean["body"], p.body)
    with pytest.raises(ValueError, match="draws whole parameters already"):
        outer.whole(posterior)
    with pytest.raises(ValueError, match="the posterior draws 'body', and the selected parameters are 'head'"):
        outer.whole(found["whole"])
    # What freezing leaves is conditioned, and comes back in two steps.
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1), "c": jnp.ones(1)}
    net = btl.nets.from_function(lambda q, x: x * (q["a"] + q["b"] + q["c"]), params)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=1)
    first = btl.infer.condition(joint, params, ["a", "b"])
    second = btl.infer.condition(first.joint, first.params, "a")
    point = first.whole(second.whole(btl.Point({"a": jnp.full(1, 5.0), "b": None, "c": None})))
    assert isinstance(point.part, btl.Point)
    for lent in (joint, first.joint, second.joint):
        given = predict.monte_carlo(KEY, lent, point)(jnp.ones((1, 1)))
        np.testing.assert_allclose(given.mean, [[6.0]])


@pytest.mark.x64
def test_refuses():
    p = _problem()
    mean = _given_body(p, slice(NUM))[0]
    posterior = _laplace(p, _joint(p), slice(NUM), mean)
    joint = _joint(p, prior=posterior)
    # All parameters under a prior of some: there is no density.
    with pytest.raises(TypeError, match=r"holds 'body' fixed has no density over all parameters; take the log joint"):
        joint.check(posterior.mean, p.inputs, p.targets)
    with pytest.raises(TypeError, match="holds 'body' fixed has no density"):
        joint(posterior.mean, btl.Batch(jnp.asarray(p.inputs), jnp.asarray(p.targets)))
    with pytest.raises(ValueError, match="the selection holds 'body', which this prior, a posterior of a part, holds"):
        btl.infer.condition(joint, posterior.mean, "body")
    with pytest.raises(ValueError, match="params and the values that parameters are held at differ at 'body'; start"):
        btl.infer.condition(joint, _tree(p.body + 1, mean), "head")
    head = btl.infer.condition(_joint(p), posterior.mean, "head")
    with pytest.raises(ValueError, match="params and the log joint are of different parameters: params has 'body' too"):
        btl.infer.condition(head.joint, posterior.mean, "head")
    flat = head.joint.replace(prior=None)
    start = btl.infer.map_estimate(flat, optax.sgd(0.1))
    with pytest.raises(ValueError, match="params has 'body' too; it is about 'head'"):
        btl.fit(KEY, start, posterior.mean, _data(p), steps=1, progress=False)
    with pytest.raises(ValueError, match="the prior does not cover 'body', which vary in the posterior"):
        btl.diagnostics.spread(KEY, btl.gaussians.isotropic(posterior.mean, 1.0), posterior)
    with pytest.raises(AttributeError, match="the random part is a Samples; only of Gaussians is that known"):
        _ = Part(btl.Samples({"w": jnp.zeros((2, 1))}, jnp.zeros(2)), {"w": None}).variance
