"""The log density in BlackJAX's hands, unchanged, on a pytree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size

import bayestl as btl


@pytest.mark.x64
def test_nuts_on_a_tree_draws_from_the_posterior():
    blackjax: Any = pytest.importorskip("blackjax")
    structure = lg.BY_NAME["blocks"]
    problem = lg.draw(structure, 6, 20, seed=0)
    batch = btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))
    log_density = btl.bridges.blackjax_log_density(lg.joint(structure, problem), batch)
    start = lg.tree(jnp.zeros(6))
    # A step of 0.7 deviations in every direction of the mass matrix; the exact variances serve as that.
    kernel = blackjax.nuts(log_density, 0.7, jnp.asarray(np.diag(problem.covariance)))

    @jax.jit
    def run(key, state):
        return jax.lax.scan(lambda state, key: (kernel.step(key, state)[0],) * 2, state, jax.random.split(key, 4000))

    _, states = run(jax.random.key(0), kernel.init(start))
    draws = states.position
    assert jax.tree.structure(draws) == jax.tree.structure(start)
    flat = np.concatenate([np.asarray(x).reshape(4000, -1) for x in jax.tree.leaves(draws)], axis=1)[100:]
    white = np.linalg.solve(np.linalg.cholesky(problem.covariance), (flat - problem.mean).T).T
    upper = np.triu_indices(6)
    moments = np.concatenate([white, (white[:, :, None] * white[:, None, :])[:, *upper]], axis=1)
    error = moments.std(axis=0) / np.sqrt(effective_sample_size(moments[None]))
    assert error.max() < 0.06, "the test sees nothing"
    wanted = np.concatenate([np.zeros(6), np.eye(6)[upper]])
    np.testing.assert_array_less(np.abs(moments.mean(axis=0) - wanted), 5 * error)


def test_it_is_the_log_joint_and_takes_its_data_as_an_argument():
    structure = lg.BY_NAME["low rank"]
    problem = lg.draw(structure, 6, 500, seed=0)
    joint = lg.joint(structure, problem, kappa=2.0, temperature=0.5)
    batch = btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))
    log_density = btl.bridges.blackjax_log_density(joint, batch)
    params = lg.tree(jnp.ones(6))
    assert log_density(params) == joint(params, batch)
    jaxpr = jax.make_jaxpr(lambda log_density, params: log_density(params))(log_density, params)
    assert all(np.size(x) < 500 for x in jaxpr.consts)
