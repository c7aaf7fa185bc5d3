"""Laplace against exact answers on linear-Gaussian problems, from numpy in float64, under every prior structure."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import bayestl as btl
from bayestl import curvature

SIZE, NUM = 6, 20
KEY = jax.random.key(0)
BUILDERS = {"dense": curvature.dense(), "dual": curvature.dual(), "low rank": curvature.low_rank(SIZE)}
each_structure = pytest.mark.parametrize("structure", [*lg.STRUCTURES, lg.KRONECKER], ids=lambda s: s.name)
each_builder = pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS.keys())


def _matrix(fn, size=SIZE):
    """The rows ``fn(e)`` of the unit vectors, flat; of a symmetric map, its matrix."""
    return jax.vmap(lambda e: jnp.concatenate([x.ravel() for x in jax.tree.leaves(fn(e))]))(lg.rows(jnp.eye(size)))


@partial(jax.jit, static_argnums=1)
def _covariance(posterior, size=SIZE):
    return _matrix(posterior.covariance_mv, size)


def _laplace(joint, mean, data, builder=BUILDERS["dense"], **settings):
    settings = {"batch_size": 7, **settings}
    return btl.infer.laplace(KEY, joint, lg.tree(jnp.asarray(mean)), data, curvature=builder, **settings)


def _log_evidence(problem, covariance, kappa=1.0, temperature=1.0):
    """``log int N(y; X theta, s^2)^(kappa/T) N(theta; mu, T Sigma0)``: the powered likelihood is a normal of variance
    s^2 T / kappa, times a constant."""
    if kappa == 0:
        return 0.0
    noise, power = problem.noise**2, kappa / temperature
    total = noise / power * np.eye(NUM) + temperature * problem.inputs @ covariance @ problem.inputs.T
    r = problem.targets - problem.inputs @ problem.prior[0]
    log_normal = -0.5 * (NUM * np.log(2 * np.pi) + np.linalg.slogdet(total)[1] + r @ np.linalg.solve(total, r))
    return log_normal + 0.5 * NUM * (np.log(2 * np.pi * noise / power) - power * np.log(2 * np.pi * noise))


# ---------------------------------------------------------------- exact laws


@pytest.mark.x64
@pytest.mark.representative(
    *("isotropic-dense", "isotropic-dual", "isotropic-low rank", "diagonal-dual", "dense-dense", "blocks-dual"),
    *("kronecker-low rank", "low rank-low rank", "low rank-dual", "low rank, negative-dense"),
)
@each_builder
@each_structure
def test_posterior_and_evidence_are_exact(structure, builder):
    problem = lg.draw(structure, SIZE, NUM, seed=0)
    covariance0 = structure.covariance(problem.prior[1])
    joint, data = lg.joint(structure, problem), lg.data(problem)

    @jax.jit
    def run(joint, mode):
        posterior = btl.infer.laplace(KEY, joint, mode, data, curvature=builder, batch_size=7)
        evidence = btl.infer.log_evidence(KEY, joint, mode, data, curvature=builder, batch_size=7)
        return posterior.mean, _covariance(posterior), evidence

    for kappa, temperature in ((1.0, 1.0), (2.0, 0.5), (0.0, 1.0)):
        tempered = joint.replace(kappa=jnp.asarray(kappa), temperature=jnp.asarray(temperature))
        mean, covariance, _ = problem.prior[0], covariance0, None
        if kappa:
            mean, covariance, _ = lg.solve(
                problem.inputs, problem.targets, problem.noise, problem.prior[0], covariance0, kappa
            )
        found_mean, found, evidence = run(tempered, lg.tree(jnp.asarray(mean)))
        np.testing.assert_allclose(lg.flat(found_mean), mean, rtol=1e-15)
        np.testing.assert_allclose(found, temperature * covariance, rtol=1e-8, atol=1e-12)
        expected = _log_evidence(problem, covariance0, kappa, temperature)
        np.testing.assert_allclose(evidence, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.x64
@pytest.mark.parametrize("prior", ["low rank", "isotropic", "zero mean"])
def test_agrees_with_the_fixture(prior):
    structure, problem = lg.fixture_problem(prior)
    name = {"low rank": "low_rank_prior", "isotropic": "isotropic_prior_variance_2"}
    stored = lg.FIXTURE[name.get(prior, "isotropic_variance_2_zero_mean")]
    joint, data = lg.joint(structure, problem), lg.data(problem)
    mode = lg.tree(jnp.asarray(stored["mean"]))
    posterior = btl.infer.laplace(KEY, joint, mode, data)
    np.testing.assert_allclose(_covariance(posterior, 3), stored["cov"], rtol=1e-8, atol=1e-12)
    evidence = btl.infer.log_evidence(KEY, joint, mode, data)
    np.testing.assert_allclose(evidence, stored["log_evidence"], rtol=1e-8)


HALVES = [(structure.name, "dual") for structure in lg.STRUCTURES] + [("low rank", "dense")]


@pytest.mark.x64
@pytest.mark.representative("isotropic-dual", "blocks-dual", "low rank-dense")
@pytest.mark.parametrize(("name", "builder"), HALVES)
def test_the_posterior_of_one_half_is_the_prior_of_the_other(name, builder):
    structure, builder = lg.BY_NAME[name], BUILDERS[builder]
    problem = lg.draw(structure, SIZE, NUM, seed=1)
    mean0, ingredients = problem.prior
    first, second = (btl.data.arrays(problem.inputs[s], problem.targets[s]) for s in (slice(8), slice(8, None)))
    half, _, _ = lg.solve(
        problem.inputs[:8], problem.targets[:8], problem.noise, mean0, structure.covariance(ingredients)
    )
    joint = lg.joint(structure, problem, num_data=8)
    between = _laplace(joint, half, first, builder)
    then = btl.LogJoint(lg.net(SIZE), joint.likelihood, between, num_data=12)
    # The mode of the second task lies at the exact posterior mean only if the first posterior was exact, mean and all.
    batch = btl.Batch(jnp.asarray(problem.inputs[8:]), jnp.asarray(problem.targets[8:]))
    gradient = jax.jit(jax.grad(then))(lg.tree(jnp.asarray(problem.mean)), batch)
    np.testing.assert_allclose(lg.flat(gradient), 0, atol=1e-8 * NUM * problem.largest_curvature)
    posterior = _laplace(then, problem.mean, second, builder)
    np.testing.assert_allclose(_covariance(posterior), problem.covariance, rtol=1e-8, atol=1e-12)


@pytest.mark.x64
@pytest.mark.parametrize("name", ["dense", "dual", pytest.param("low rank", marks=pytest.mark.slow)])
def test_the_evidence_has_exact_gradients_in_scale_and_noise(name):
    builder = BUILDERS[name]
    structure = lg.BY_NAME["low rank"]
    problem = lg.draw(structure, SIZE, NUM, seed=2)
    joint, data = lg.joint(structure, problem), lg.data(problem)
    covariance = structure.covariance(problem.prior[1])

    def evidence(log_scale, log_noise):
        tuned = joint.replace(
            prior=joint.prior.rescale(jnp.exp(2 * log_scale)),
            likelihood=btl.likelihoods.normal(problem.noise * jnp.exp(log_noise)),
        )
        mode = lg.tree(jnp.asarray(problem.mean))
        return btl.infer.log_evidence(KEY, tuned, mode, data, curvature=builder, batch_size=7)

    found = jax.grad(evidence, (0, 1))(0.0, 0.0)

    # At the mode, where the log joint is stationary, the gradient at fixed parameters is that of the exact evidence.
    def exact(log_scale, log_noise):
        moved = problem._replace(noise=problem.noise * np.exp(log_noise))
        return _log_evidence(moved, covariance * np.exp(2 * log_scale))

    h = 1e-5
    central = [(exact(h, 0) - exact(-h, 0)) / (2 * h), (exact(0, h) - exact(0, -h)) / (2 * h)]
    # Central differences: truncation h^2 = 1e-10, rounding 1e-16 * 30 / h = 3e-10.
    np.testing.assert_allclose(found, central, rtol=1e-8, atol=2e-8)


@pytest.mark.x64
def test_the_evidence_of_all_scales_is_that_of_each():
    problem = lg.draw(lg.BY_NAME["blocks"], SIZE, NUM, seed=3)
    data, mode = lg.data(problem), lg.tree(jnp.asarray(problem.mean))
    diagonal = lg.joint(lg.BY_NAME["diagonal"], lg.draw(lg.BY_NAME["diagonal"], SIZE, NUM, seed=3))
    for joint in (lg.joint(lg.BY_NAME["blocks"], problem), diagonal):
        joint = joint.replace(kappa=jnp.asarray(2.0), temperature=jnp.asarray(0.5))
        evidence = btl.infer.scale_evidence(KEY, joint, mode, data, batch_size=7)
        assert len(evidence.names) == 2
        for log_factors in (np.zeros(2), np.array([0.7, -1.3])):
            prior = evidence.rescaled_prior(jnp.asarray(log_factors))
            expected = btl.infer.log_evidence(KEY, joint.replace(prior=prior), mode, data, batch_size=7)
            np.testing.assert_allclose(evidence(log_factors), expected, rtol=1e-10)
    at, h = np.array([0.3, -0.4]), 1e-5
    central = [(evidence(at + h * e) - evidence(at - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(jax.grad(evidence)(at), central, rtol=1e-7)


@pytest.mark.x64
def test_under_the_flat_prior_it_is_the_inverse_curvature():
    structure = lg.BY_NAME["isotropic"]
    problem = lg.draw(structure, SIZE, NUM, seed=4)
    joint = lg.joint(structure, problem).replace(prior=None)
    posterior = _laplace(joint, problem.mean, lg.data(problem))
    expected = problem.noise**2 * np.linalg.inv(problem.inputs.T @ problem.inputs)
    np.testing.assert_allclose(_covariance(posterior), expected, rtol=1e-8, atol=1e-12)


# ---------------------------------------------------------------- a part of the parameters


@pytest.mark.x64
@pytest.mark.parametrize("name", ["low rank", "dense"])
def test_a_selection_conditions_the_prior_on_the_rest(name):
    structure = lg.BY_NAME[name]
    problem = lg.draw(structure, SIZE, NUM, seed=5)
    joint, data = lg.joint(structure, problem), lg.data(problem)
    fixed = np.linspace(-1.0, 1.0, SIZE)
    posterior = _laplace(joint, fixed, data, BUILDERS["dual"], selection="body/**")
    # Of the whole posterior precision, the block of the selection: the head's two numbers come first.
    block = slice(2, None)
    precision = np.linalg.inv(structure.covariance(problem.prior[1]))
    precision = (problem.inputs.T @ problem.inputs / problem.noise**2 + precision)[block, block]
    expected = np.zeros((SIZE, SIZE))
    expected[block, block] = np.linalg.inv(precision)
    np.testing.assert_allclose(_covariance(posterior), expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(lg.flat(posterior.mean), fixed)
    np.testing.assert_allclose(lg.flat(posterior.variance), np.diag(expected), rtol=1e-8)
    root = _matrix(posterior.unwhiten)
    np.testing.assert_allclose(root.T @ root, expected, rtol=1e-8, atol=1e-12)
    draws = posterior.sample(jax.random.key(1), 3)
    np.testing.assert_array_equal(draws["a/head"], np.tile(fixed[:2], (3, 1)))
    assert np.all(draws["body"]["kernel"] != lg.tree(fixed)["body"]["kernel"])
    predict = btl.predict.monte_carlo(jax.random.key(1), joint, posterior, 4)
    assert predict(jnp.asarray(problem.inputs)).mean.shape == (NUM,)


@pytest.mark.x64
def test_a_conditioned_log_joint_is_the_whole_one_up_to_a_constant():
    structure = lg.BY_NAME["dense"]
    problem = lg.draw(structure, SIZE, NUM, seed=6)
    joint = lg.joint(structure, problem, kappa=2.0, temperature=0.5)
    batch = btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))
    params = lg.tree(jnp.linspace(-1.0, 1.0, SIZE))
    part = btl.infer.condition(joint, params, "body/**")
    moved = jax.tree.map(lambda x: x + 0.3, part.params)
    difference = part.joint(moved, batch) - part.joint(part.params, batch)
    whole = joint({**params, "body": moved["body"]}, batch) - joint(params, batch)
    np.testing.assert_allclose(difference, whole, rtol=1e-10)
    # Every method takes it.
    fitted = btl.fit(
        KEY, btl.infer.map_estimate(part.joint, optax.sgd(1e-3)), part.params, lg.data(problem), steps=2,
        progress=False,
    )  # fmt: skip
    assert fitted.params["a/head"] is None


# ---------------------------------------------------------------- data


@pytest.mark.x64
def test_neither_batch_size_nor_padding_changes_the_posterior():
    net = btl.nets.mlp(jax.random.key(1), (3, 4, 3))
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(11, 3)), rng.integers(0, 3, 11)
    prior = btl.gaussians.isotropic(net.params, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=11)
    run = partial(btl.infer.laplace, KEY, joint, net.params)
    expected = run(btl.data.arrays(inputs, targets), batch_size=None)
    padded = btl.Batch(
        jnp.concatenate([jnp.full((2, 3), jnp.nan), jnp.asarray(inputs)]),
        jnp.concatenate([jnp.full(2, 99), jnp.asarray(targets)]),
        jnp.arange(13) >= 2,
    )
    for found in (run(btl.data.arrays(inputs, targets), batch_size=4), run(padded, batch_size=5)):
        np.testing.assert_allclose(found.cholesky, expected.cholesky, rtol=1e-10, atol=1e-13)


def test_another_mode_and_other_tempers_compile_nothing_new():
    structure = lg.BY_NAME["low rank"]
    problem = lg.draw(structure, SIZE, NUM, seed=7)
    joint, data = lg.joint(structure, problem), lg.data(problem)
    compiled = []

    def run(mean, kappa):
        tempered = joint.replace(kappa=jnp.asarray(kappa))
        return btl.infer.laplace(
            KEY, tempered, lg.tree(jnp.asarray(mean, jnp.float32)), data, curvature=curvature.low_rank(3)
        )

    run(problem.mean, 1.0)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    again = run(problem.mean + 1, 0.5)
    assert compiled == []
    assert again.rank == 6  # three of the prior, three of the data
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(again))


# ---------------------------------------------------------------- bad input


def _small(prior=True, likelihood=None, num=3):
    net = btl.nets.from_function(lg.linear, lg.tree(jnp.zeros(SIZE)))
    gaussian = btl.gaussians.isotropic(net.params, 1.0) if prior is True else prior
    likelihood = btl.likelihoods.normal(1.0) if likelihood is None else likelihood
    rng = np.random.default_rng(0)
    joint = btl.LogJoint(net, likelihood, gaussian, num_data=num)
    return joint, net.params, btl.data.arrays(rng.normal(size=(num, SIZE)), rng.normal(size=num))


def test_a_singular_curvature_under_the_flat_prior_is_named():
    joint, params, data = _small(prior=None)
    message = (
        "not positive definite under the flat prior: the smallest eigenvalue of H is .*direction lies in '.*'; give"
    )
    with pytest.raises(ValueError, match=message):
        btl.infer.laplace(KEY, joint, params, data)
    with pytest.raises(ValueError, match="kappa = 0 there is the prior alone"):
        btl.infer.laplace(KEY, joint.replace(kappa=jnp.zeros(())), params, data)
    with pytest.raises(ValueError, match=r"a curvature of 3 columns .* under the flat prior"):
        btl.infer.laplace(KEY, joint, params, data, curvature=curvature.dual())
    with pytest.raises(ValueError, match=r"low_rank looks for the directions .* the flat prior outweighs nothing"):
        btl.infer.laplace(KEY, joint, params, data, curvature=curvature.low_rank(2))
    with pytest.raises(ValueError, match="the flat prior is improper, so the evidence is undefined"):
        btl.infer.log_evidence(KEY, joint, params, data)
    with pytest.raises(ValueError, match="the flat prior is improper, so the evidence is undefined"):
        btl.infer.scale_evidence(KEY, joint, params, data)


def test_a_likelihood_that_knows_no_hessian_is_differentiated():
    def student(outputs):
        return dist.StudentT(3.0, outputs, 1.0)

    joint, params, data = _small(likelihood=btl.likelihoods.from_function(student))
    for kind in (curvature.ggn, curvature.empirical_fisher):
        posterior = btl.infer.laplace(KEY, joint, params, data, kind=kind)
        assert np.all(lg.flat(posterior.variance) < 1)


def _batch_normalised(params, state, inputs, key):
    outputs = lg.linear(params, inputs)
    return outputs - jnp.mean(outputs), state


def test_batch_statistics_in_training_mode_are_refused():
    joint, params, data = _small()
    params = lg.tree(jnp.ones(SIZE))
    net = btl.Net(params, (), _batch_normalised)
    joint = btl.LogJoint(net, joint.likelihood, joint.prior, num_data=3)
    with pytest.raises(ValueError, match=r"depend on the others in its batch: .*nets.frozen_state"):
        btl.infer.laplace(KEY, joint, params, data)


def _broken(params, inputs):
    return jnp.sqrt(lg.linear(params, inputs) ** 2)  # the derivative of the root at 0 is infinite, times 0


def test_a_curvature_that_is_not_finite_is_named():
    joint, params, data = _small()
    joint = btl.LogJoint(btl.nets.from_function(_broken, params), joint.likelihood, joint.prior, num_data=3)
    with pytest.raises(ValueError, match="curvature is not finite at 'a~1head', 'body/kernel'"):
        btl.infer.laplace(KEY, joint, params, data)


def test_other_bad_input_is_named():
    joint, params, data = _small()
    with pytest.raises(ValueError, match=r"low_rank\(7\) asks for more than there are parameters, 6"):
        btl.infer.laplace(KEY, joint, params, data, curvature=curvature.low_rank(7))
    for empty in ([], ""):
        with pytest.raises(ValueError, match="selection is empty, so that nothing is left to infer"):
            btl.infer.laplace(KEY, joint, params, data, selection=empty)
    with pytest.raises(ValueError, match="leaves out every parameter"):
        btl.infer.laplace(KEY, joint, params, data, selection=jax.tree.map(lambda _: None, params))
    with pytest.raises(ValueError, match=r"'neck/.*' matches no parameter"):
        btl.infer.laplace(KEY, joint, params, data, selection="neck/**")
    with pytest.raises(ValueError, match="batch_size is 0"):
        btl.infer.laplace(KEY, joint, params, data, batch_size=0)
    with pytest.raises(TypeError, match="data is a list, which neither holds its examples nor can be read by rows"):
        btl.infer.laplace(KEY, joint, params, [1, 2])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"dense curvature of 6 parameters .* max_parameters is 5"):
        btl.infer.laplace(KEY, joint, params, data, curvature=curvature.dense(max_parameters=5))


class _Other:
    def log_prob(self, params):
        return jnp.zeros(())

    def sample(self, key, num_samples):
        return None


def test_a_prior_that_is_no_gaussian_is_refused():
    joint, params, data = _small(prior=_Other())
    with pytest.raises(TypeError, match="takes a Gaussian prior or None, and got a _Other"):
        btl.infer.laplace(KEY, joint, params, data)
    with pytest.raises(TypeError, match="_Other, which cannot be conditioned"):
        btl.infer.condition(joint, params, "body/**")
