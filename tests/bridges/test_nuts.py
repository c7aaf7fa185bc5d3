"""The no-U-turn sampler against the exact posteriors of linear-Gaussian problems, within its own Monte-Carlo error."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size

import bayestl as btl
from bayestl.diagnostics import by_chain, r_hat

SETTINGS: Any = {"num_warmup": 300, "num_samples": 1000, "num_chains": 4, "progress": False}
COMPILED: list[str] = []


@jax.monitoring.register_event_duration_secs_listener
def _note(event: str, duration: float, **_: Any) -> None:
    if event.endswith("backend_compile_duration"):
        COMPILED.append(event)


def nuts(joint: btl.LogJoint, problem: lg.Problem, key: int = 0, **changes: Any) -> btl.posteriors.Chain:
    start = lg.tree(jnp.zeros(len(problem.mean)))
    return btl.bridges.nuts(jax.random.key(key), joint, start, lg.data(problem), **{**SETTINGS, **changes})


def assert_law(chains: btl.posteriors.Chain, mean: np.ndarray, covariance: np.ndarray) -> None:
    """First and second moments along the true principal axes, each within five of its own standard errors."""
    root = jnp.asarray(np.linalg.cholesky(covariance))
    upper = np.triu_indices(len(mean))

    def moments(params: Any) -> jax.Array:
        flat = jnp.concatenate([x.ravel() for x in jax.tree.leaves(params)])
        white = jax.scipy.linalg.solve_triangular(root, flat - mean, lower=True)
        return jnp.concatenate([white, jnp.outer(white, white)[upper]])

    found = np.asarray(jax.vmap(moments)(chains.draws), np.float64)
    error = found.std(axis=0) / np.sqrt(effective_sample_size(np.asarray(by_chain(chains, moments), np.float64)))
    wanted = np.concatenate([np.zeros(len(mean)), np.eye(len(mean))[upper]])
    assert error.max() < 0.06, "the test sees nothing"
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - wanted), 5 * error)
    assert r_hat(by_chain(chains, moments)).max() < 1.03
    assert not chains.stats["diverging"].any()


@pytest.mark.x64
def test_draws_follow_the_fixtures_posterior():
    structure, problem = lg.fixture_problem("low rank")
    chains = nuts(lg.joint(structure, problem), problem)
    exact = lg.FIXTURE["low_rank_prior"]
    assert_law(chains, np.array(exact["mean"]), np.array(exact["cov"]))


@pytest.mark.x64
@pytest.mark.parametrize(
    ("kappa", "temperature"), [(1.0, 1.0), (2.0, 0.3), (0.0, 1.0)], ids=["posterior", "tempered", "prior"]
)
def test_draws_follow_the_posterior_under_a_prior_of_blocks(kappa, temperature):
    structure = lg.BY_NAME["blocks"]
    problem = lg.draw(structure, 6, 20, seed=0)
    covariance = structure.covariance(problem.prior[1])
    precision = kappa * problem.inputs.T @ problem.inputs / problem.noise**2 + np.linalg.inv(covariance)
    right = kappa * problem.inputs.T @ problem.targets / problem.noise**2
    mean = np.linalg.solve(precision, right + np.linalg.solve(covariance, problem.prior[0]))
    joint = lg.joint(structure, problem, kappa=kappa, temperature=temperature)
    assert_law(nuts(joint, problem), mean, temperature * np.linalg.inv(precision))


@pytest.mark.x64
def test_draws_of_a_head_follow_its_posterior_given_the_rest():
    structure = lg.BY_NAME["low rank"]
    problem = lg.draw(structure, 6, 20, seed=2)
    fixed = np.linspace(-1.0, 1.0, 6)
    part = btl.infer.condition(lg.joint(structure, problem), lg.tree(jnp.asarray(fixed)), "a~1head")
    chains = btl.bridges.nuts(jax.random.key(0), part.joint, part.params, lg.data(problem), **SETTINGS)
    # Of the whole posterior the head's two numbers, which come first, given the others.
    precision = np.linalg.inv(problem.covariance)
    covariance = np.linalg.inv(precision[:2, :2])
    mean = problem.mean[:2] - covariance @ precision[:2, 2:] @ (fixed - problem.mean)[2:]
    assert chains.draws["body"]["kernel"] is None
    assert_law(chains, mean, covariance)


def test_a_second_run_compiles_nothing_and_sees_its_own_data():
    structure = lg.BY_NAME["diagonal"]
    first, second = lg.draw(structure, 3, 200, seed=0), lg.draw(structure, 3, 200, seed=1)
    short: Any = {"num_warmup": 50, "num_samples": 50, "num_chains": 2}
    joint = lg.joint(structure, first)
    chains = nuts(joint, first, **short)
    compiled = len(COMPILED)
    other = nuts(joint.replace(kappa=jnp.float32(2.0)), first._replace(targets=second.targets), **short)
    # The data and the joint's numbers are arguments: a program with either as a constant would not serve again.
    assert len(COMPILED) == compiled
    assert not np.allclose(lg.flat(chains.draws), lg.flat(other.draws))

    assert isinstance(chains, btl.Samples)
    assert jax.tree.map(jnp.shape, chains.draws) == {"body": {"kernel": (100, 1)}, "a/head": (100, 2)}
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(chains.draws))
    assert chains.stats["diverging"].shape == chains.stats["accept_prob"].shape == (100,)
    again = nuts(joint, first, **short)
    jax.tree.map(np.testing.assert_array_equal, chains.draws, again.draws)
    predict = btl.predict.monte_carlo(jax.random.key(0), joint, chains)
    assert predict(jnp.asarray(first.inputs, jnp.float32)).mean.shape == (200,)
    different = nuts(joint, first, key=1, **short)
    assert not np.allclose(lg.flat(chains.draws), lg.flat(different.draws))


@pytest.mark.x64
def test_draws_with_a_progress_bar_follow_the_posterior_too(monkeypatch):
    # NumPyro shows no bar where it sees these, and runs the program that the other tests run.
    for name in ("CI", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    structure, problem = lg.fixture_problem("low rank")
    chains = nuts(lg.joint(structure, problem), problem, progress=True)
    assert_law(chains, problem.mean, problem.covariance)


def test_draws_lie_chain_after_chain(monkeypatch):
    values = jnp.arange(2 * 5 * 3, dtype=jnp.float32).reshape(2, 5, 3)
    fields = {"diverging": jnp.zeros((2, 5), bool), "accept_prob": jnp.ones((2, 5))}
    monkeypatch.setattr("bayestl.bridges._nuts._compiled", lambda *_: ({"theta": values}, fields))
    structure, problem = lg.fixture_problem("low rank")
    chains = nuts(lg.joint(structure, problem), problem, num_chains=2, num_samples=5)
    chains = by_chain(chains)
    np.testing.assert_array_equal(chains["a/head"], values[..., :2])
    np.testing.assert_array_equal(chains["body"]["kernel"], values[..., 2:])


class Funnel:
    """Neal's funnel, where trajectories diverge."""

    def log_prob(self, params: Any) -> jax.Array:
        spread, rest = params["a/head"][0], jnp.append(params["a/head"][1], params["body"]["kernel"])
        return dist.Normal(0, 3).log_prob(spread) + dist.Normal(0, jnp.exp(spread / 2)).log_prob(rest).sum()


def test_divergences_are_told():
    structure, problem = lg.fixture_problem("low rank")
    joint = lg.joint(structure, problem, kappa=0.0).replace(prior=Funnel())
    with pytest.warns(RuntimeWarning, match=r"of 400 trajectories diverged, .* raise target_accept_prob"):
        chains = nuts(joint, problem, num_warmup=50, num_samples=100, target_accept_prob=0.5)
    assert chains.stats["diverging"].any()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_warmup": -1}, "num_warmup is -1; it must be at least 0"),
        ({"num_samples": 0}, "num_samples is 0; it must be at least 1"),
        ({"num_chains": 0}, "num_chains is 0; it must be at least 1"),
        ({"max_tree_depth": 0}, "max_tree_depth is 0; it must be at least 1"),
        ({"target_accept_prob": 1.0}, r"target_accept_prob is 1\.0; it must lie between 0 and 1"),
    ],
    ids=str,
)
def test_numbers_out_of_range(change, message):
    structure, problem = lg.fixture_problem("low rank")
    with pytest.raises(ValueError, match=message):
        nuts(lg.joint(structure, problem), problem, **change)


def test_other_bad_arguments():
    structure, problem = lg.fixture_problem("low rank")
    joint, data, key = lg.joint(structure, problem), lg.data(problem), jax.random.key(0)
    with pytest.raises(ValueError, match="prior and params differ at 'body/kernel'"):
        btl.bridges.nuts(key, joint, lg.tree(jnp.zeros(4)), data, **SETTINGS)
    with pytest.raises(ValueError, match="log density at params is -inf; chains must start where it is finite"):
        btl.bridges.nuts(key, joint, lg.tree(jnp.full(3, 1e30)), data, **SETTINGS)
    with pytest.raises(TypeError, match="data is a object, which neither holds its examples nor can be read"):
        btl.bridges.nuts(key, joint, lg.tree(jnp.zeros(3)), object(), **SETTINGS)  # pyright: ignore[reportArgumentType]
    shapes = jax.eval_shape(lambda: btl.Batch(jnp.zeros((4, 3)), jnp.zeros(4)))
    with pytest.raises(TypeError, match=r"data is a Batch, which does not hold .* give bayestl\.data\.arrays"):
        btl.bridges.nuts(key, joint, lg.tree(jnp.zeros(3)), shapes, **SETTINGS)  # pyright: ignore[reportArgumentType]
