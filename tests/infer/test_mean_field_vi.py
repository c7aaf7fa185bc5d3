"""Mean-field VI against its known optimum on linear-Gaussian problems, from numpy in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import bayestl as btl

SIZE, NUM = 6, 30
each_structure = pytest.mark.parametrize("structure", lg.STRUCTURES, ids=lambda structure: structure.name)


def _optimum(problem, covariance, temperature=1.0):
    """Means, variances and ELBO of the best independent Gaussian; the joint divided by T."""
    mean0, _ = problem.prior
    precision = np.linalg.inv(problem.covariance) / temperature
    variance = 1 / np.diag(precision)
    residual = problem.targets - problem.inputs @ problem.mean
    explained = np.sum(problem.inputs**2 @ variance)
    log_likelihood = -0.5 * (
        NUM * np.log(2 * np.pi * problem.noise**2) + (residual @ residual + explained) / problem.noise**2
    )
    prior = temperature * covariance
    r = problem.mean - mean0
    kl = 0.5 * (
        np.sum(np.diag(np.linalg.inv(prior)) * variance)
        + r @ np.linalg.solve(prior, r)
        - SIZE
        + np.linalg.slogdet(prior)[1]
        - np.sum(np.log(variance))
    )
    return problem.mean, variance, log_likelihood / temperature - kl


def _at(mean, variance):
    return lg.tree(jnp.asarray(mean)), lg.tree(0.5 * jnp.log(jnp.asarray(variance)))


@pytest.mark.x64
@pytest.mark.representative("1.0-isotropic", "0.3-dense", "1.0-blocks", "0.3-low rank, negative")
@each_structure
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_at_the_optimum_the_gradient_is_zero_and_the_elbo_the_known_one(structure, temperature):
    problem = lg.draw(structure, SIZE, NUM, seed=1)
    covariance = structure.covariance(problem.prior[1])
    mean, variance, elbo = _optimum(problem, covariance, temperature)
    joint = lg.joint(structure, problem, temperature=temperature)
    # SGD with rate 1 turns updates into gradients: new - old = -gradient.
    inference = btl.infer.mean_field_vi(joint, optax.sgd(1.0))
    start, log_scale = _at(mean, variance)
    state = inference.init(jax.random.key(0), start)._replace(log_scale=log_scale)
    batch = btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))

    def one(key):
        new, info = inference.step(key, state, batch)
        gradient = jax.tree.map(jnp.subtract, (state.mean, state.log_scale), (new.mean, new.log_scale))
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(gradient)]), info

    gradients, info = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 4000))
    # Five standard errors of the mean over independent draws, for each of the 2 D numbers and for the ELBO.
    error = gradients.std(0) / np.sqrt(len(gradients))
    assert np.all(np.abs(gradients.mean(0)) < 5 * error)
    assert abs(info.elbo.mean() - elbo) < 5 * info.elbo.std() / np.sqrt(len(gradients))
    # Per effective datum: the objective is -ELBO T / (kappa N).
    np.testing.assert_allclose(info.objective, -info.elbo * temperature / NUM, rtol=1e-12)


@pytest.mark.x64
@pytest.mark.representative("isotropic", "low rank")
@each_structure
def test_finds_the_variances_from_afar(structure):
    problem = lg.draw(structure, SIZE, NUM, seed=2)
    mean, variance, _ = _optimum(problem, structure.covariance(problem.prior[1]))
    joint = lg.joint(structure, problem)
    # Adam at rate l leaves log scales with a variance of l/2 times noise over curvature, here some 0.2 for 64 draws; at
    # half-lives of 1200 steps they stop following at l = 2e-4, which leaves 0.5 % of a scale, 1 % of a variance.
    schedule = optax.exponential_decay(0.03, 1200, 0.5)
    inference = btl.infer.mean_field_vi(joint, optax.adam(schedule), num_samples=64, initial_scale=0.3)
    fitted = btl.fit(
        jax.random.key(0), inference, lg.tree(jnp.zeros(SIZE)), lg.data(problem), steps=10_000, progress=False,
        batch_size=NUM,
    )  # fmt: skip
    np.testing.assert_allclose(lg.flat(fitted.posterior.variance), variance, rtol=0.02)
    # Means to a tenth of a posterior standard deviation.
    assert np.all(np.abs(lg.flat(fitted.params) - mean) < 0.1 * np.sqrt(variance))


@pytest.mark.x64
@pytest.mark.representative("diagonal", "blocks")
@each_structure
def test_without_data_it_gives_the_projection_of_the_prior(structure):
    problem = lg.draw(structure, SIZE, NUM, seed=3)
    precision = np.linalg.inv(structure.covariance(problem.prior[1]))
    joint = lg.joint(structure, problem, kappa=0.0)
    inference = btl.infer.mean_field_vi(joint, optax.adam(optax.exponential_decay(0.1, 300, 0.5)))
    fitted = btl.fit(
        jax.random.key(0), inference, lg.tree(jnp.zeros(SIZE)), lg.data(problem), steps=4000, progress=False
    )
    # The KL is exact and its gradient noiseless, so that only the optimizer's tail is left: rates add up to 1e-2 after
    # 3000 steps, and to 1e-3 after 4000.
    np.testing.assert_allclose(lg.flat(fitted.params), problem.prior[0], atol=1e-5)
    np.testing.assert_allclose(lg.flat(fitted.posterior.variance), 1 / np.diag(precision), rtol=1e-5)


@pytest.mark.x64
def test_under_the_flat_prior_it_fits_the_likelihood_alone():
    structure = lg.BY_NAME["isotropic"]
    problem = lg.draw(structure, SIZE, NUM, seed=4)
    joint = lg.joint(structure, problem).replace(prior=None)
    _, covariance, _ = lg.solve(problem.inputs, problem.targets, problem.noise, np.zeros(SIZE), 1e12 * np.eye(SIZE))
    schedule = optax.exponential_decay(0.03, 1200, 0.5)
    inference = btl.infer.mean_field_vi(joint, optax.adam(schedule), num_samples=64)
    fitted = btl.fit(
        jax.random.key(0), inference, lg.tree(jnp.zeros(SIZE)), lg.data(problem), steps=10_000, progress=False
    )
    np.testing.assert_allclose(lg.flat(fitted.posterior.variance), 1 / np.diag(np.linalg.inv(covariance)), rtol=0.03)


@pytest.mark.x64
def test_monte_carlo_divergence_is_unbiased_and_used_for_other_priors():
    class StudentT:
        def log_prob(self, params):
            return jnp.sum(dist.StudentT(4.0).log_prob(params["w"]))

        def sample(self, key, num_samples):
            return {"w": dist.StudentT(4.0).sample(key, (num_samples, 2))}

    q = btl.gaussians.diagonal({"w": jnp.array([0.3, -1.0])}, {"w": jnp.array([0.5, 2.0])})
    p = btl.gaussians.isotropic({"w": jnp.zeros(2)}, 1.5)
    estimate = btl.infer.monte_carlo_kl(50)
    values = jax.vmap(lambda key: estimate(q, p, key))(jax.random.split(jax.random.key(0), 400))
    expected = sum(np.log(1.5 / np.sqrt(v)) + (v + m * m) / (2 * 1.5**2) - 0.5 for m, v in [(0.3, 0.5), (-1.0, 2.0)])
    assert abs(values.mean() - expected) < 5 * values.std() / np.sqrt(400)

    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), StudentT(), num_data=4, temperature=0.5)
    inference = btl.infer.mean_field_vi(joint, optax.sgd(0.1))
    state = inference.init(jax.random.key(0), net.params)
    batch = btl.Batch(jnp.ones((4, 2)), jnp.zeros(4))
    infos = jax.vmap(lambda key: inference.step(key, state, batch)[1])(jax.random.split(jax.random.key(1), 400))
    # q is so narrow (0.01) that log p is its value at the mean to 1e-3; the prior is tempered by T = 1/2.
    entropy = 2 * (0.5 * (1 + np.log(2 * np.pi)) + np.log(0.01))
    known = -entropy - 2 * 2 * float(dist.StudentT(4.0).log_prob(0.0))
    assert abs(infos.kl.mean() - known) < 5 * infos.kl.std() / np.sqrt(400) + 1e-3


def test_noise_is_on_exactly_the_parameters_that_the_kl_charges():
    net = btl.nets.from_function(
        lambda params, x: x @ params["w"] + params["b"], {"w": jnp.zeros(2), "b": jnp.zeros(())}
    )
    prior = btl.gaussians.isotropic(net.params, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=3)
    inference = btl.infer.mean_field_vi(joint, optax.sgd(0.1), initial_scale=0.5)
    state = inference.init(jax.random.key(0), net.params)
    assert jax.tree.structure(state.log_scale) == jax.tree.structure(net.params)

    seen = []

    def spy(params, inputs):
        seen.append(params)
        return inputs @ params["w"] + params["b"]

    spying = btl.LogJoint(btl.nets.from_function(spy, net.params), btl.likelihoods.normal(1.0), prior, num_data=3)
    batch = btl.Batch(jnp.ones((3, 2)), jnp.zeros(3))
    with jax.disable_jit():
        _, info = btl.infer.mean_field_vi(spying, optax.sgd(0.1), initial_scale=0.5).step(
            jax.random.key(1), state, batch
        )
    drawn = jax.tree.map(lambda x: np.asarray(jax.lax.stop_gradient(getattr(x, "primal", x))), seen[-1])
    assert all(np.all(np.abs(x) > 1e-6) for x in jax.tree.leaves(drawn)), "a parameter was left without noise"
    # KL(N(0, 1/4) || N(0, 1)) for each of the three parameters.
    np.testing.assert_allclose(info.kl, 3 * (np.log(2) + 0.125 - 0.5), rtol=1e-5)


def test_through_fit_many_each_member_has_its_own_prior():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=4)
    data = btl.data.arrays(jnp.ones((4, 2)), jnp.ones(4))
    optimizer = optax.adam(0.05)

    def make(scale):
        prior = btl.gaussians.isotropic(net.params, scale)
        return btl.infer.mean_field_vi(joint.replace(prior=prior), optimizer)

    keys = jax.random.split(jax.random.key(0), 2)
    many = btl.fit_many(keys, make, jnp.array([0.1, 1.0]), net.params, data, steps=50, progress=False)
    for m, scale in enumerate((0.1, 1.0)):
        alone = btl.fit(keys[m], make(jnp.float32(scale)), net.params, data, steps=50, progress=False)
        # The same operations in another order of summation, over 50 steps.
        np.testing.assert_allclose(many.posterior.mean["w"][m], alone.posterior.mean["w"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(many.posterior.diagonal["w"][m], alone.posterior.diagonal["w"], rtol=1e-4)


def test_bad_input():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
    prior = btl.gaussians.isotropic(net.params, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
    with pytest.raises(ValueError, match="num_samples is 0; at least 1 draw per step"):
        btl.infer.mean_field_vi(joint, optax.sgd(0.1), num_samples=0)
    with pytest.raises(ValueError, match=r"initial_scale is 0\.0; it is a standard deviation"):
        btl.infer.mean_field_vi(joint, optax.sgd(0.1), initial_scale=0.0)
    with pytest.raises(ValueError, match="num_samples is 0; at least 1 draw is needed"):
        btl.infer.monte_carlo_kl(0)
    with pytest.raises(ValueError, match="params and prior differ at 'w'"):
        btl.infer.mean_field_vi(joint, optax.sgd(0.1)).init(jax.random.key(0), {"w": jnp.zeros(3)})
    with pytest.warns(UserWarning, match="second prior"):
        btl.infer.mean_field_vi(joint, optax.adamw(0.1)).init(jax.random.key(0), net.params)


@pytest.mark.x64
def test_sticking_the_landing_has_no_noise_at_the_posterior():
    """Columns of X are orthonormal, so that the posterior has independent parameters of one variance: whatever the
    draw, the gradient at it is 0, where that of the closed form has the noise of the likelihood's."""
    rng = np.random.default_rng(0)
    x, y = np.linalg.qr(rng.normal(size=(5, 3)))[0], rng.normal(size=5)
    net = btl.nets.from_function(lambda p, x: x @ p["w"], {"w": jnp.zeros(3)})
    prior = btl.gaussians.isotropic({"w": jnp.ones(3)}, 2.0)
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.5), prior, num_data=5)
    precision = 1 / 0.5**2 + 1 / 2.0**2
    mean = {"w": jnp.asarray((x.T @ y / 0.5**2 + 1 / 2.0**2) / precision)}
    batch = btl.Batch(jnp.asarray(x), jnp.asarray(y))
    moved = []
    for divergence in (btl.infer.sticking_the_landing, None):
        inference = btl.infer.mean_field_vi(
            joint, optax.sgd(1.0), num_samples=2, initial_scale=precision**-0.5, divergence=divergence
        )
        state = inference.init(jax.random.key(0), mean)
        after, _ = jax.jit(inference.step)(jax.random.key(1), state, batch)
        moved.append(np.abs(np.concatenate([after.mean["w"] - mean["w"], after.log_scale["w"] - state.log_scale["w"]])))
    assert moved[0].max() < 1e-12
    assert moved[1].min() > 1e-3
