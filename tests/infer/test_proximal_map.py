"""The proximal step: the mode under any schedule, momentum and sharpness, where a gradient step would diverge."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import optax
import pytest

import bayestl as btl


def _schedule(setting, problem):
    """A rate that decays, drops at step 300, or stays: numbers of a setting, so that one program serves all."""

    def rate(count):
        drop = jnp.where(count < 300, 1.0, setting["drop"])
        return setting["rate"] / problem.largest_curvature * setting["decay"] ** count * drop

    return rate


SETTINGS = [
    {"momentum": 0.0, "rate": 1.0, "decay": 1.0, "drop": 1.0},
    {"momentum": 0.9, "rate": 1.0, "decay": 1.0, "drop": 1.0},
    {"momentum": 0.9, "rate": 1.0, "decay": 0.99, "drop": 1.0},
    {"momentum": 0.9, "rate": 1.0, "decay": 1.0, "drop": 0.01},
    {"momentum": 0.5, "rate": 1.0, "decay": 0.995, "drop": 0.1},
]


@pytest.mark.x64
def test_fixed_point_is_the_mode_under_any_schedule_and_momentum():
    structure = lg.BY_NAME["low rank, negative"]
    problem = lg.draw(structure, 6, 40, seed=0)
    settings = jax.tree.map(lambda *xs: jnp.array(xs), *SETTINGS)

    def method(setting):
        joint = lg.joint(structure, problem)
        return btl.infer.proximal_map(joint, _schedule(setting, problem), momentum=setting["momentum"])

    keys = jax.random.split(jax.random.key(0), len(SETTINGS))
    run = {"steps": 1200, "batch_size": 40, "chunk_size": 1200, "progress": False}
    fitted = btl.fit_many(keys, method, settings, lg.tree(jnp.zeros(6)), lg.data(problem), **run)
    for member, setting in enumerate(SETTINGS):
        found = lg.flat(jax.tree.map(lambda x, member=member: x[member], fitted.params))
        # All members are at the mode, to 1e-8 at least, before their rates have died out; from then on they must stay.
        np.testing.assert_allclose(found, problem.mean, atol=1e-7, rtol=0, err_msg=str(setting))


@pytest.mark.x64
def test_solves_what_a_gradient_step_cannot():
    rng = np.random.default_rng(0)
    inputs, targets, mean = rng.normal(size=(40, 6)), rng.normal(size=40), rng.normal(size=6)
    ingredients = (np.full(6, 1e-6), rng.normal(size=(3, 6)))
    covariance = np.diag(ingredients[0]) + ingredients[1].T @ ingredients[1]
    mode, _, curvature = lg.solve(inputs, targets, 1.0, mean, covariance)
    assert 0.1 * curvature > 2 * 1.9, "heavy ball must be unstable at this learning rate"
    problem = lg.Problem(inputs, targets, np.float64(1.0), (mean, ingredients), mode, covariance, curvature)
    joint, data, start = lg.joint(lg.BY_NAME["low rank"], problem), lg.data(problem), lg.tree(jnp.zeros(6))
    run = {"steps": 500, "batch_size": 40, "chunk_size": 500, "progress": False}
    with pytest.warns(RuntimeWarning, match=r"objective is (inf|nan) at step .* infer.proximal_map"):
        btl.fit(jax.random.key(0), btl.infer.map_estimate(joint, optax.sgd(0.1, momentum=0.9)), start, data, **run)
    fitted = btl.fit(jax.random.key(0), btl.infer.proximal_map(joint, 0.1, momentum=0.9), start, data, **run)
    # The prior's condition number of 1e6 magnifies rounding.
    np.testing.assert_allclose(lg.flat(fitted.params), mode, rtol=0, atol=1e-8)


@pytest.mark.x64
def test_from_the_source_weights_to_maximum_likelihood():
    structure = lg.BY_NAME["isotropic"]
    problem = lg.draw(structure, 6, 40, seed=1)
    source = problem.prior[0]
    scales = np.array([1e-6, 1e-2, 1.0, 1e5])

    def method(scale):
        prior = btl.gaussians.isotropic(lg.tree(jnp.asarray(source)), scale)
        return btl.infer.proximal_map(lg.joint(structure, problem).replace(prior=prior), 0.1, momentum=0.9)

    keys = jax.random.split(jax.random.key(0), len(scales))
    run = {"steps": 600, "batch_size": 40, "chunk_size": 600, "progress": False}
    fitted = btl.fit_many(keys, method, scales, lg.tree(jnp.zeros(6)), lg.data(problem), **run)
    found = [lg.flat(jax.tree.map(lambda x, m=m: x[m], fitted.params)) for m in range(len(scales))]
    for scale, mode in zip(scales, found, strict=True):
        truth, _, _ = lg.solve(problem.inputs, problem.targets, problem.noise, source, scale**2 * np.eye(6))
        np.testing.assert_allclose(mode, truth, rtol=0, atol=1e-9)
    # The mode leaves the source weights by scale^2 times the log likelihood's gradient, here below 1e3.
    np.testing.assert_allclose(found[0], source, rtol=0, atol=1e-9)
    likelihood_only = np.linalg.lstsq(problem.inputs, problem.targets)[0]
    np.testing.assert_allclose(found[-1], likelihood_only, rtol=0, atol=1e-9)


@pytest.mark.x64
def test_first_step_by_hand_in_the_dtype_of_the_parameters():
    structure, problem = lg.fixture_problem("low rank", kappa=2.0)
    joint = lg.joint(structure, problem, kappa=2.0)
    inference = btl.infer.proximal_map(joint, optax.constant_schedule(0.1), momentum=0.5)
    start = lg.tree(jnp.ones(3, jnp.float32))
    state = inference.init(jax.random.key(0), start)
    batch = btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))
    new_state, info = jax.jit(inference.step)(jax.random.key(0), state, batch)
    theta, (mean, ingredients) = np.ones(3), problem.prior
    residual = (problem.inputs @ theta - problem.targets) / problem.noise**2
    moved = theta - 0.1 * problem.inputs.T @ residual / 4
    covariance, s = structure.covariance(ingredients), 0.1 / (2.0 * 4)
    truth = moved - s * np.linalg.solve(covariance + s * np.eye(3), moved - mean)
    # float32 parameters
    np.testing.assert_allclose(lg.flat(new_state.params), truth, rtol=1e-6)
    assert [x.dtype for x in jax.tree.leaves(new_state)] == [x.dtype for x in jax.tree.leaves(state)]
    energy = -0.5 * (theta - mean) @ np.linalg.solve(covariance, theta - mean)
    np.testing.assert_allclose(info.objective, info.nll - energy / (2.0 * 4), rtol=1e-6)


class _NotGaussian:
    def log_prob(self, params):
        return jnp.zeros(())


def test_refuses():
    structure, problem = lg.fixture_problem("isotropic")
    joint = lg.joint(structure, problem)
    with pytest.raises(TypeError, match="proximal_map needs a Gaussian prior and got _NotGaussian; use map_estimate"):
        btl.infer.proximal_map(joint.replace(prior=_NotGaussian()), 0.1)
    with pytest.raises(TypeError, match="needs a Gaussian prior and got NoneType"):
        btl.infer.proximal_map(joint.replace(prior=None), 0.1)
    with pytest.raises(ValueError, match=r"proximal_map needs kappa > 0: .* use map_estimate"):
        btl.infer.proximal_map(lg.joint(structure, problem, kappa=0), 0.1)
    for momentum in (1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=rf"momentum is {momentum}; it must lie in \[0, 1\)"):
            btl.infer.proximal_map(joint, 0.1, momentum=momentum)
