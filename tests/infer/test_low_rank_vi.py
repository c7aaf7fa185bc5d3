"""Low-rank VI against exact posteriors and evidences of linear-Gaussian problems, from numpy in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import optax
import pytest

import bayestl as btl
from bayestl.infer._factored import Factored
from bayestl.infer._variational import default_divergence

SIZE, NUM = 6, 30
# Less its smallest eigenvalue times I, any covariance has this rank.
ENOUGH = SIZE - 1
DRAWS = 2000
# Blocks are a diagonal and a dense one; the low-rank prior is in the conformance list; None is the flat one.
STRUCTURES = [lg.BY_NAME["low rank, negative"], lg.BY_NAME["blocks"], None]


def _split(covariance):
    """``a`` and F with ``a I + F^T F = covariance``, F of rank D - 1."""
    values, vectors = np.linalg.eigh(covariance)
    return values[0] * np.ones(SIZE), (vectors * np.sqrt(values - values[0])).T[1:]


def _posterior(problem, prior, kappa, temperature):
    """The tempers, mean, ``a`` and F of the exact posterior, and its log evidence by Laplace's formula, exact here.

    ``log int P(D | theta)^(kappa/T) N(theta; mean0, T Sigma0)``; the prior is 1 when it is flat (None).
    """
    mean0 = problem.prior[0]
    sigma0 = 1e14 * np.eye(SIZE) if prior is None else prior
    precision = kappa * problem.inputs.T @ problem.inputs / problem.noise**2 + np.linalg.inv(sigma0)
    covariance = temperature * np.linalg.inv(precision)
    right = kappa * problem.inputs.T @ problem.targets / problem.noise**2 + np.linalg.solve(sigma0, mean0)
    mean = np.linalg.solve(precision, right)
    residual = problem.targets - problem.inputs @ mean
    log_likelihood = -0.5 * (NUM * np.log(2 * np.pi * problem.noise**2) + residual @ residual / problem.noise**2)
    log_prior = SIZE / 2 * np.log(2 * np.pi)
    if prior is not None:
        r = mean - mean0
        log_prior = -0.5 * (r @ np.linalg.solve(temperature * prior, r) + np.linalg.slogdet(temperature * prior)[1])
    evidence = kappa * log_likelihood / temperature + log_prior + 0.5 * np.linalg.slogdet(covariance)[1]
    return kappa, temperature, mean, *_split(covariance), evidence


@pytest.mark.x64
@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda x: x.name if x else "flat")
def test_at_the_posterior_the_gradient_is_zero_and_the_elbo_the_evidence(structure):
    problem = lg.draw(structure or lg.BY_NAME["isotropic"], SIZE, NUM, seed=1)
    prior = structure.covariance(problem.prior[1]) if structure else None
    tempers = [(1.0, 1.0), (1.0, 0.3)] + ([] if prior is None else [(0.0, 0.3)])  # (kappa, T)
    cases = [_posterior(problem, prior, *pair) for pair in tempers]
    batch = btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))

    @jax.jit
    @jax.vmap
    def gradients_and_infos(kappa, temperature, mean, diagonal, factor, _):
        joint = lg.joint(structure or lg.BY_NAME["isotropic"], problem, kappa=kappa, temperature=temperature)
        joint = joint if structure else joint.replace(prior=None)
        # SGD with rate 1 turns updates into gradients: new - old = -gradient.
        inference = btl.infer.low_rank_vi(joint, optax.sgd(1.0), rank=ENOUGH, allow_weight_decay=True)
        state = inference.init(jax.random.key(0), lg.tree(mean))
        state = state._replace(log_scale=lg.tree(0.5 * jnp.log(diagonal)), factor=lg.rows(factor))

        def one(key):
            new, info = inference.step(key, state, batch)
            gradient = jax.tree.map(jnp.subtract, state[:3], new[:3])
            return jnp.concatenate([x.ravel() for x in jax.tree.leaves(gradient)]), info

        return jax.vmap(one)(jax.random.split(jax.random.key(1), DRAWS))

    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *cases)
    gradients, info = gradients_and_infos(*stacked)
    # Five standard errors of the mean over independent draws, for each of the D (k + 2) numbers and for the ELBO;
    # without data there is no noise, only rounding.
    assert gradients.shape[2] == SIZE * (ENOUGH + 2)
    assert np.all(np.abs(gradients.mean(1)) < 5 * gradients.std(1) / np.sqrt(DRAWS) + 1e-12)
    evidence = np.array([case[-1] for case in cases])
    assert np.all(np.abs(info.elbo.mean(1) - evidence) < 5 * info.elbo.std(1) / np.sqrt(DRAWS) + 1e-12)
    np.testing.assert_allclose(info.objective, -info.elbo * np.array(stacked[1])[:, None] / NUM, rtol=1e-12, atol=1e-14)


@pytest.mark.x64
def test_draws_in_training_and_the_posterior_have_the_same_covariance():
    rng, num = np.random.default_rng(0), 20_000
    diagonal, factor = np.exp(rng.normal(size=SIZE)), rng.normal(size=(3, SIZE))
    parts = lg.tree(jnp.ones(SIZE)), lg.tree(jnp.asarray(diagonal)), lg.rows(jnp.asarray(factor))
    covariance = np.diag(diagonal) + factor.T @ factor
    draws = jax.jit(lambda key: Factored(*parts).sample(key, num))(jax.random.key(1))
    draws = np.concatenate([x.reshape(num, -1) for x in jax.tree.leaves(draws)], axis=1)
    # Five standard errors: sqrt(S_ii / n) of a mean, sqrt((S_ij^2 + S_ii S_jj) / n) of a sample covariance.
    scale = np.diag(covariance)
    assert np.all(np.abs(draws.mean(0) - 1) < 5 * np.sqrt(scale / num))
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * np.sqrt((covariance**2 + np.outer(scale, scale)) / num))

    structure = lg.BY_NAME["isotropic"]
    inference = btl.infer.low_rank_vi(lg.joint(structure, lg.draw(structure, SIZE, NUM, 0)), optax.sgd(0.1), rank=3)
    state = inference.init(jax.random.key(0), lg.tree(jnp.ones(SIZE)))
    posterior: Any = inference.posterior(state._replace(log_scale=lg.tree(0.5 * jnp.log(diagonal)), factor=parts[2]))
    columns = jax.vmap(lambda e: posterior.covariance_mv(lg.tree(e)))(jnp.eye(SIZE))
    columns = np.concatenate([x.reshape(SIZE, -1) for x in jax.tree.leaves(columns)], axis=1)
    np.testing.assert_allclose(columns, covariance, rtol=1e-10, atol=1e-12)


@pytest.mark.x64
@pytest.mark.parametrize("equal", [False, True], ids=["distinct", "equal eigenvalues"])
def test_the_factored_form_against_dense_algebra(equal):
    rng = np.random.default_rng(0)
    diagonal = np.ones(SIZE) if equal else np.exp(rng.normal(size=SIZE))
    factor = 2 * np.eye(SIZE)[:3] if equal else rng.normal(size=(3, SIZE))
    mean, at = rng.normal(size=SIZE), rng.normal(size=SIZE)
    prior_covariance = np.cov(rng.normal(size=(SIZE, 40)))
    prior = lg.BY_NAME["dense"].build(lg.tree(jnp.zeros(SIZE)), prior_covariance)
    precision = np.linalg.inv(prior_covariance)

    def numbers(diagonal, factor):
        q = Factored(lg.tree(jnp.asarray(mean)), lg.tree(diagonal), lg.rows(factor))
        divergence = 0.5 * (q.trace(prior.precision_diagonal(), prior.precision_quadratic) - q.log_det_covariance())
        return divergence, q.log_prob(lg.tree(jnp.asarray(at)))

    covariance = np.diag(diagonal) + factor.T @ factor
    inverse, r = np.linalg.inv(covariance), at - mean
    log_det = np.linalg.slogdet(covariance)[1]
    found = numbers(jnp.asarray(diagonal), jnp.asarray(factor))
    wanted = 0.5 * (np.trace(precision @ covariance) - log_det)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-12)
    wanted = -0.5 * (SIZE * np.log(2 * np.pi) + log_det + r @ inverse @ r)
    np.testing.assert_allclose(found[1], wanted, rtol=1e-12)

    # d KL = 1/2 tr((P - Sigma^-1) dSigma), d log q = 1/2 tr((Sigma^-1 r r^T Sigma^-1 - Sigma^-1) dSigma).
    gradients = jax.jit(jax.jacobian(numbers, (0, 1)))(jnp.asarray(diagonal), jnp.asarray(factor))
    along = inverse @ r
    for found, inner in zip(gradients, (precision - inverse, np.outer(along, along) - inverse), strict=True):
        np.testing.assert_allclose(found[0], 0.5 * np.diag(inner), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found[1], factor @ inner, rtol=1e-10, atol=1e-12)


def test_the_factored_density_survives_float32():
    # 50,000 parameters at variances of 1e-8 along wide directions: Woodbury's |rho|^2 - ... cancels there.
    rng = np.random.default_rng(0)
    diagonal, factor = np.full(50_000, 1e-8), rng.normal(size=(4, 50_000))
    noise, along = rng.normal(size=50_000), rng.normal(size=4)
    q = Factored({"w": jnp.zeros(50_000)}, {"w": jnp.float32(diagonal)}, {"w": jnp.float32(factor)})
    at = {"w": jnp.float32(1e-4 * noise + along @ factor)}
    # float64 oracle at the rounded point, by Woodbury.
    columns, rho = np.asarray(np.float32(factor), np.float64) / 1e-4, np.asarray(at["w"], np.float64) / 1e-4
    inner = np.eye(4) + columns @ columns.T
    quadratic = rho @ rho - (columns @ rho) @ np.linalg.solve(inner, columns @ rho)
    log_det = 50_000 * np.log(1e-8) + np.linalg.slogdet(inner)[1]
    truth = -0.5 * (50_000 * np.log(2 * np.pi) + log_det + quadratic)
    # rho is some 1e4: rounding leaves 1e-3 in each of its entries beside noise of 1, 50,000 x 1e-6 in all, and w keeps
    # 1e-6 of its own size.
    np.testing.assert_allclose(float(q.log_prob(at)), truth, rtol=2e-3)


class _Disguised:
    """A Gaussian that does not say so."""

    def __init__(self, gaussian):
        self._gaussian = gaussian

    def log_prob(self, params):
        return self._gaussian.log_prob(params)

    def sample(self, key, num_samples):
        return self._gaussian.sample(key, num_samples)


@pytest.mark.x64
def test_for_other_priors_the_divergence_is_an_unbiased_estimate():
    rng = np.random.default_rng(0)
    prior = lg.BY_NAME["dense"].build(lg.tree(jnp.zeros(SIZE)), np.cov(rng.normal(size=(SIZE, 40))))
    diagonal, factor = np.exp(rng.normal(size=SIZE)), rng.normal(size=(3, SIZE))
    q = Factored(lg.tree(jnp.ones(SIZE)), lg.tree(jnp.asarray(diagonal)), lg.rows(jnp.asarray(factor)))
    known = btl.gaussians.kl_divergence(btl.gaussians.low_rank(q.mean, q.diagonal, q.factor), prior)
    np.testing.assert_allclose(default_divergence(prior)(q, prior, jax.random.key(0)), known, rtol=1e-10)
    other = _Disguised(prior)
    keys = jax.random.split(jax.random.key(1), 2000)
    values = jax.jit(jax.vmap(lambda key: default_divergence(other)(q, other, key)))(keys)
    assert abs(values.mean() - known) < 5 * values.std() / np.sqrt(len(keys))


def test_the_start_has_the_scale_asked_for():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(20_000)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=4)
    inference = btl.infer.low_rank_vi(joint, optax.sgd(0.1), rank=3, initial_scale=0.2)
    state = inference.init(jax.random.key(0), net.params)
    variance = jnp.exp(2 * state.log_scale["w"]) + jnp.sum(state.factor["w"] ** 2, axis=0)
    assert variance.min() > 0.499 * 0.2**2
    # Half of it is a chi-squared of 3 degrees of freedom, of relative variance 2/3, over 20,000 numbers.
    np.testing.assert_allclose(variance.mean(), 0.2**2, rtol=5 * 0.5 * np.sqrt(2 / 3 / 20_000))


def test_bad_input():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), btl.gaussians.isotropic(net.params, 1.0), num_data=4)
    sgd, key = optax.sgd(0.1), jax.random.key(0)
    with pytest.raises(ValueError, match="rank is 0; it must be at least 1: use mean_field_vi"):
        btl.infer.low_rank_vi(joint, sgd, rank=0)
    with pytest.raises(ValueError, match="rank is 3, but there are only 2 parameters; lower it"):
        btl.infer.low_rank_vi(joint, sgd, rank=3).init(key, net.params)
    with pytest.raises(ValueError, match="num_samples is 0; at least 1 draw per step"):
        btl.infer.low_rank_vi(joint, sgd, rank=1, num_samples=0)
    with pytest.raises(ValueError, match=r"initial_scale is -1; it is a standard deviation"):
        btl.infer.low_rank_vi(joint, sgd, rank=1, initial_scale=-1)
    with pytest.warns(UserWarning, match="second prior"):
        btl.infer.low_rank_vi(joint, optax.adamw(0.1), rank=1).init(key, net.params)
