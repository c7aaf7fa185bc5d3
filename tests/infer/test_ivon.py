"""IVON against its algorithm in numpy, and against the mean-field optimum of linear-Gaussian problems."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import optax
import pytest

import bayestl as btl

SIZE, NUM, DRAWS = 6, 30, 2000
# Blocks are a diagonal and a dense one; the low-rank prior is met below; None is the flat one.
STRUCTURES = [lg.BY_NAME["low rank, negative"], lg.BY_NAME["blocks"], None]


def _batch(problem):
    return btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))


def _rate(count):
    # In float64, which optax's own schedules are not.
    return 0.3 * jnp.exp2(-count.astype(float) / 2)


def _likelihood_hessian(problem):
    return problem.inputs.T @ problem.inputs / problem.noise**2 / NUM


@pytest.mark.x64
def test_steps_by_hand():
    structure = lg.BY_NAME["low rank"]
    problem = lg.draw(structure, SIZE, NUM, seed=0)
    kappa, temperature, b1, b2, num = 2.0, 0.5, 0.9, 0.8, 4
    joint = lg.joint(structure, problem, kappa=kappa, temperature=temperature)
    inference = btl.infer.ivon(joint, _rate, momentum=b1, hessian_decay=b2, initial_hessian=0.7, num_samples=num)
    start = np.linspace(-1, 1, SIZE)
    state = inference.init(jax.random.key(0), lg.tree(jnp.asarray(start)))
    step = jax.jit(inference.step)

    precision, mu = np.linalg.inv(structure.covariance(problem.prior[1])), problem.prior[0]
    ess, delta = kappa * NUM / temperature, np.diag(precision) / (kappa * NUM)
    m, h, g = start, np.full(SIZE, 0.7), np.zeros(SIZE)
    for t in range(4):
        key = jax.random.key(10 + t)
        state, _ = step(key, state, _batch(problem))
        # Algorithm 1, with the noise that the step drew.
        keys = jax.random.split(jax.random.split(key)[0], num)
        noise = np.stack([lg.flat(btl.tree.normal_like(k, state.mean)) for k in keys])
        sigma = 1 / np.sqrt(ess * (h + delta))
        thetas = m + sigma * noise
        grads = (thetas @ problem.inputs.T - problem.targets) @ problem.inputs / problem.noise**2 / NUM
        new = np.mean(grads * (thetas - m) / sigma**2, axis=0)
        g = b1 * g + (1 - b1) * grads.mean(0)
        h = b2 * h + (1 - b2) * new + 0.5 * (1 - b2) ** 2 * (h - new) ** 2 / (h + delta)
        debiased = g / (1 - b1 ** (t + 1))
        m = m - 0.3 * 0.5 ** (t / 2) * (debiased + precision @ (m - mu) / (kappa * NUM)) / (h + delta)
        np.testing.assert_allclose(lg.flat(state.mean), m, rtol=1e-10)
        np.testing.assert_allclose(lg.flat(state.hessian), h, rtol=1e-10)
    posterior: Any = inference.posterior(state)
    np.testing.assert_allclose(lg.flat(posterior.variance), 1 / (ess * (h + delta)), rtol=1e-10)
    np.testing.assert_allclose(lg.flat(posterior.mean), m, rtol=1e-10)


def _optimum(problem, prior, kappa, temperature):
    """Tempers, mean, likelihood Hessian's diagonal, variances, KL and ELBO of the best independent Gaussian."""
    inputs, targets, noise, mean0 = problem.inputs, problem.targets, problem.noise, problem.prior[0]
    inverse = np.zeros((SIZE, SIZE)) if prior is None else np.linalg.inv(prior)
    precision = kappa * inputs.T @ inputs / noise**2 + inverse
    mean = np.linalg.solve(precision, kappa * inputs.T @ targets / noise**2 + inverse @ mean0)
    variance = temperature / np.diag(precision)
    residual, explained = targets - inputs @ mean, np.sum(inputs**2 @ variance)
    log_likelihood = -0.5 * (NUM * np.log(2 * np.pi * noise**2) + (residual @ residual + explained) / noise**2)
    kl = -0.5 * np.sum(1 + np.log(2 * np.pi * variance))
    if prior is not None:
        r, log_det = mean - mean0, np.linalg.slogdet(2 * np.pi * temperature * prior)[1]
        kl += 0.5 * (np.diag(inverse) @ variance + r @ inverse @ r) / temperature + 0.5 * log_det
    hessian = (kappa > 0) * np.diag(_likelihood_hessian(problem))
    return kappa, temperature, mean, hessian, variance, kl, kappa * log_likelihood / temperature - kl


@pytest.mark.x64
@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda x: x.name if x else "flat")
def test_the_mean_field_optimum_is_where_it_rests(structure):
    problem = lg.draw(structure or lg.BY_NAME["isotropic"], SIZE, NUM, seed=1)
    prior = structure.covariance(problem.prior[1]) if structure else None
    tempers = [(1.0, 1.0), (2.0, 0.3)] + ([] if prior is None else [(0.0, 0.3)])  # (kappa, T)
    cases = [_optimum(problem, prior, *pair) for pair in tempers]
    slow = 1e-6

    @jax.jit
    @jax.vmap
    def drifts(kappa, temperature, mean, hessian, *_):
        joint = lg.joint(structure or lg.BY_NAME["isotropic"], problem, kappa=kappa, temperature=temperature)
        joint = joint if structure else joint.replace(prior=None)
        inference = btl.infer.ivon(joint, 1.0, momentum=0.0, hessian_decay=1 - slow)
        state = inference.init(jax.random.key(0), lg.tree(mean))._replace(hessian=lg.tree(hessian))

        def one(key):
            new, info = inference.step(key, state, _batch(problem))
            moved = jax.tree.map(jnp.subtract, (new.mean, new.hessian), (state.mean, state.hessian))
            return jnp.concatenate([x.ravel() for x in jax.tree.leaves(moved)]), info

        posterior: Any = inference.posterior(state)
        return *jax.vmap(one)(jax.random.split(jax.random.key(1), DRAWS)), posterior.variance

    stacked = jax.tree.map(lambda *xs: np.stack(xs), *cases)
    moved, info, variance = drifts(*map(jnp.asarray, stacked))
    _, _, _, _, wanted, kl, elbo = stacked
    # Five standard errors of the mean over independent draws, and the slow change of h in the step's denominator; the
    # correction in h is of second order in 1 - b2. Without data there is no noise, only rounding.
    error = 5 * moved.std(1) / np.sqrt(DRAWS)
    assert moved.shape[2] == 2 * SIZE
    assert np.all(np.abs(moved.mean(1)) < error * (1 + 100 * slow) + 1e-12)
    found = np.stack([lg.flat(jax.tree.map(lambda x, i=i: x[i], variance)) for i in range(len(cases))])
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    np.testing.assert_allclose(info.kl, np.broadcast_to(kl[:, None], info.kl.shape), rtol=1e-9, atol=1e-9)
    assert np.all(np.abs(info.elbo.mean(1) - elbo) < 5 * info.elbo.std(1) / np.sqrt(DRAWS) + 1e-9)
    counted = stacked[1] / (np.where(stacked[0] > 0, stacked[0], 1) * NUM)
    np.testing.assert_allclose(info.objective, -info.elbo * counted[:, None], rtol=1e-12)


@pytest.mark.x64
def test_finds_the_mean_field_optimum_from_afar_within_its_own_noise():
    structure = lg.BY_NAME["low rank"]
    problem = lg.draw(structure, SIZE, NUM, seed=2)
    decay, num = 0.995, 16
    joint = lg.joint(structure, problem)
    schedule = optax.exponential_decay(0.5, 400, 0.5)
    inference = btl.infer.ivon(joint, schedule, hessian_decay=decay, num_samples=num)
    fitted = btl.fit(
        jax.random.key(0), inference, lg.tree(jnp.zeros(SIZE)), lg.data(problem), steps=4000, batch_size=NUM,
        chunk_size=4000, progress=False,
    )  # fmt: skip
    _, _, mean, hessian, variance, _, _ = _optimum(problem, structure.covariance(problem.prior[1]), 1.0, 1.0)
    # g e / sigma at the optimum, g = g0 + H (sigma e): its variance over e, exactly, then over num draws.
    full = _likelihood_hessian(problem)
    at_mean = problem.inputs.T @ (problem.inputs @ mean - problem.targets) / problem.noise**2 / NUM
    others = full**2 @ variance - np.diag(full) ** 2 * variance
    noise = ((at_mean**2 + others) / variance + 2 * np.diag(full) ** 2) / num
    bias = 0.5 * (1 - decay) * noise * NUM * variance  # the correction over 1 - b2; h + delta = 1 / (N variance)
    spread = np.sqrt((1 - decay) / (1 + decay) * noise)
    found = lg.flat(fitted.state.hessian)
    assert np.all(np.abs(found - hessian - bias) < 5 * spread)
    precision = NUM * (hessian + bias) + 1 / variance - NUM * hessian
    # Noise in h moves sigma, and with it nothing but the next noise.
    np.testing.assert_allclose(1 / lg.flat(fitted.posterior.variance), precision, atol=float(5 * NUM * spread.max()))
    assert np.max(5 * NUM * spread * variance) < 0.25, "the bound is too loose to say anything"
    # The rates end at 5e-4: the mean has averaged over a thousand steps of 16 draws.
    assert np.all(np.abs(lg.flat(fitted.params) - mean) < 0.1 * np.sqrt(variance))


@pytest.mark.x64
def test_without_data_it_goes_to_the_projection_of_the_prior():
    structure = lg.BY_NAME["dense"]
    problem = lg.draw(structure, SIZE, NUM, seed=3)
    joint = lg.joint(structure, problem, kappa=0.0)
    fitted = btl.fit(
        jax.random.key(0), btl.infer.ivon(joint, 0.3), lg.tree(jnp.zeros(SIZE)), lg.data(problem), steps=3000,
        chunk_size=3000, progress=False,
    )  # fmt: skip
    precision = np.linalg.inv(structure.covariance(problem.prior[1]))
    # The way to mu shrinks by 1 - rate lam at each step, lam >= 0.01 an eigenvalue of D^-1/2 P D^-1/2.
    scale = 1 / np.sqrt(np.diag(precision))
    assert np.linalg.eigvalsh(scale[:, None] * precision * scale).min() > 0.01
    np.testing.assert_allclose(lg.flat(fitted.params), problem.prior[0], atol=1e-3)
    np.testing.assert_allclose(lg.flat(fitted.posterior.variance), 1 / np.diag(precision), rtol=1e-10)


def test_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    structure = lg.BY_NAME["isotropic"]
    problem = lg.draw(structure, SIZE, NUM, seed=4)
    inference = btl.infer.ivon(lg.joint(structure, problem), optax.exponential_decay(0.1, 5, 0.5), hessian_decay=0.9)
    start = lg.tree(jnp.zeros(SIZE))
    settings = {"batch_size": 8, "chunk_size": 6, "progress": False}

    def run(steps, **more):
        return btl.fit(jax.random.key(0), inference, start, lg.data(problem), steps=steps, **settings, **more)

    run(6, checkpoint=btl.Checkpoint(tmp_path))
    resumed, straight = run(12, checkpoint=btl.Checkpoint(tmp_path)), run(12)
    assert resumed.state.count == 12
    for found, wanted in zip(jax.tree.leaves(resumed.state), jax.tree.leaves(straight.state), strict=True):
        assert np.array_equal(found, wanted)


def test_the_variances_stay_positive_whatever_the_gradients():
    net = btl.nets.from_function(lambda params, x: jnp.cos(x @ params["w"]), {"w": jnp.zeros(3)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.01), None, num_data=5)
    # Noise, a wrong scale of it, and a Hessian of both signs throw the estimate about.
    inference = btl.infer.ivon(joint, 0.0, hessian_decay=0.1, initial_hessian=1e-3)
    rng = np.random.default_rng(0)
    batch = btl.Batch(jnp.float32(rng.normal(size=(5, 3))), jnp.float32(rng.normal(size=5)))

    def step(state, key):
        state, _ = inference.step(key, state, batch)
        posterior: Any = inference.posterior(state)
        return state, (state.hessian["w"], posterior.variance["w"])

    keys = jax.random.split(jax.random.key(0), 500)
    hessian, variance = jax.jit(lambda state: jax.lax.scan(step, state, keys))(inference.init(keys[0], net.params))[1]
    assert np.all(hessian > 0)
    assert np.all(variance > 0)
    assert hessian.max() > 100 * hessian.min()


class _Other:
    def log_prob(self, params):
        return jnp.zeros(())


def test_bad_input():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), btl.gaussians.isotropic(net.params, 1.0), num_data=4)
    with pytest.raises(TypeError, match=r"ivon needs a Gaussian prior, .* got _Other; mean_field_vi takes any prior"):
        btl.infer.ivon(joint.replace(prior=_Other()), 0.1)
    with pytest.raises(ValueError, match="under the flat prior needs kappa > 0"):
        btl.infer.ivon(joint.replace(prior=None, kappa=jnp.float32(0)), 0.1)
    with pytest.raises(ValueError, match=r"momentum is 1; it must lie in \[0, 1\)"):
        btl.infer.ivon(joint, 0.1, momentum=1)
    with pytest.raises(ValueError, match=r"hessian_decay is -0.1; it must lie in \[0, 1\)"):
        btl.infer.ivon(joint, 0.1, hessian_decay=-0.1)
    with pytest.raises(ValueError, match=r"initial_hessian is 0; it is a curvature per datum"):
        btl.infer.ivon(joint, 0.1, initial_hessian=0)
    with pytest.raises(ValueError, match="num_samples is 0; at least 1 draw per step"):
        btl.infer.ivon(joint, 0.1, num_samples=0)
    with pytest.raises(ValueError, match="params and prior differ at 'w'"):
        btl.infer.ivon(joint, 0.1).init(jax.random.key(0), {"w": jnp.zeros(3)})
