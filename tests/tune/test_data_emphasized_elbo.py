"""The data-emphasised ELBO against its formula on linear-Gaussian problems, in numpy, and on a logistic one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl

RNG = np.random.default_rng(0)
NUM, NOISE = 7, 0.8
# Flat parameters: a body of three numbers, a head of two.
PARTS = (slice(0, 3), slice(3, 5))
MEAN, INPUTS, TARGETS = RNG.normal(size=5), RNG.normal(size=(NUM, 5)), RNG.normal(size=NUM)


def tree(flat: Any) -> dict[str, jax.Array]:
    return {"body": jnp.asarray(flat[:3]), "head": jnp.asarray(flat[3:])}


def prior() -> btl.gaussians.Gaussian:
    """Scales that do not matter."""
    mean = tree(MEAN)
    each = {"head": btl.gaussians.isotropic(mean, 3.0), "**": btl.gaussians.isotropic(mean, 0.1)}
    return btl.gaussians.by_path(each)


def linear(params: Any, inputs: jax.Array) -> jax.Array:
    return inputs @ jnp.concatenate([params["body"], params["head"]])


def expected_nll(theta: np.ndarray, scale: float) -> float:
    """E_q of the mean negative log likelihood."""
    squares = (TARGETS - INPUTS @ theta) ** 2 + scale**2 * np.sum(INPUTS**2, 1)
    return float(np.mean(0.5 * squares / NOISE**2 + 0.5 * np.log(2 * np.pi * NOISE**2)))


def divergence(theta: np.ndarray, scale: float) -> float:
    """KL between independent Gaussians at tau = s^2 + |theta_b - mu_b|^2 / D_b."""
    total = 0.0
    for part in PARTS:
        squares = (theta[part] - MEAN[part]) ** 2
        tau = scale**2 + squares.mean()
        total += np.sum(0.5 * (scale**2 / tau + squares / tau - 1 + np.log(tau / scale**2)))
    return float(total)


def loss(theta: np.ndarray, scale: float) -> float:
    penalty = sum(
        len(theta[part]) / 10 * np.log1p(np.sum((theta[part] - MEAN[part]) ** 2) / (len(theta[part]) * scale**2))
        for part in PARTS
    )
    return expected_nll(theta, scale) + float(penalty)


@pytest.mark.x64
def test_loss_and_gradient_are_those_of_the_formula():
    theta, scale = RNG.normal(size=5), 0.3
    assert loss(theta, scale) == pytest.approx(expected_nll(theta, scale) + divergence(theta, scale) / 5, rel=1e-12)
    net = btl.nets.from_function(linear, tree(np.zeros(5)))
    joint = btl.LogJoint(net, btl.likelihoods.normal(NOISE), prior(), num_data=NUM)
    # SGD with rate 1 turns updates into gradients: new - old = -gradient.
    inference = btl.tune.data_emphasized_elbo(joint, optax.sgd(1.0), initial_scale=scale)
    batch = btl.Batch(jnp.asarray(INPUTS), jnp.asarray(TARGETS))

    @jax.jit
    @jax.vmap
    def one(key: jax.Array) -> tuple[jax.Array, Any]:
        state = inference.init(key, tree(theta))
        new, info = inference.step(key, state, batch)
        gradient = jax.tree.map(jnp.subtract, (state.mean, state.log_scale), (new.mean, new.log_scale))
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(gradient)]), info

    gradients, info = jax.tree.map(np.asarray, one(jax.random.split(jax.random.key(0), 4000)))
    np.testing.assert_allclose(info.kl, divergence(theta, scale), rtol=1e-12)
    np.testing.assert_allclose(info.objective, info.nll + info.kl / 5, rtol=1e-12)
    np.testing.assert_allclose(info.elbo, -5 * info.objective, rtol=1e-12)

    def at(x: np.ndarray) -> float:
        return loss(x[:5], np.exp(x[5]))

    x = np.array([*theta, np.log(scale)])
    differences = [(at(x + 1e-5 * e) - at(x - 1e-5 * e)) / 2e-5 for e in np.eye(6)]
    # Five standard errors over independent draws.
    for values, expected in ((info.objective, at(x)), (gradients, differences)):
        assert np.all(np.abs(values.mean(0) - expected) < 5 * values.std(0) / np.sqrt(len(values)))


def test_a_logistic_fit_learns_the_scales_of_its_blocks():
    """The head has to move and the body, whose input says nothing, has not."""
    labels = np.tile([0, 1], 10)
    inputs = np.concatenate([0.1 * RNG.normal(size=(20, 3)), (2 * labels - 1)[:, None] * [2.0, -1.0]], 1)
    net = btl.nets.from_function(linear, tree(MEAN.astype(np.float32)))
    joint = btl.LogJoint(net, btl.likelihoods.bernoulli(), prior())
    inference = btl.tune.data_emphasized_elbo(joint, optax.adam(0.03), num_samples=4)
    data = btl.data.arrays(inputs.astype(np.float32), labels)
    settings = {"steps": 400, "batch_size": 20, "progress": False}
    fitted = btl.fit(jax.random.key(0), inference, net.params, data, **settings)
    objective = fitted.history["objective"]
    assert objective[-50:].mean() < 0.7 * objective[:5].mean()
    posterior: Any = fitted.posterior
    closest = btl.tune.closest_scales(posterior, prior())
    (variance,) = np.unique([float(np.ravel(x)[0]) for x in jax.tree.leaves(posterior.variance)])
    moved = np.concatenate([np.asarray(fitted.params[name], float) for name in ("body", "head")]) - MEAN
    learned = closest.prior.variance
    for name, part in zip(("body", "head"), PARTS, strict=True):
        np.testing.assert_allclose(learned[name], variance + np.mean(moved[part] ** 2), rtol=1e-5)
    assert float(learned["head"][0]) > 2 * float(learned["body"][0])


def test_bad_inputs_are_refused():
    net = btl.nets.from_function(linear, tree(np.zeros(5, np.float32)))

    def made(prior: Any, **settings: Any) -> btl.Inference:
        changes = {name: settings.pop(name) for name in ("kappa", "temperature") if name in settings}
        joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=NUM, **changes)
        return btl.tune.data_emphasized_elbo(joint, optax.adam(0.1), **settings)

    unit = btl.gaussians.isotropic(net.params, 1.0)
    with pytest.raises(TypeError, match="NoneType; the scales of Gaussian priors"):
        made(None)
    for name in ("kappa", "temperature"):
        with pytest.raises(ValueError, match=f"{name} 0.5.*sets the power of the likelihood itself"):
            made(unit, **{name: 0.5})
    with pytest.raises(ValueError, match="initial_scale is 0"):
        made(unit, initial_scale=0.0)
    with pytest.raises(ValueError, match="num_samples is 0"):
        made(unit, num_samples=0)
