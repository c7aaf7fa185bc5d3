"""Dense, dual and low-rank curvature of a small network against each other and against numpy."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import bayestl as btl
from bayestl import curvature
from bayestl.curvature._low_rank import lanczos

KEY = jax.random.key(0)
NUM = 6


def _problem(dtype=jnp.float64):
    net = btl.nets.mlp(jax.random.key(3), (3, 5, 3))
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), net.params)
    rng = np.random.default_rng(0)
    data = btl.data.arrays(jnp.asarray(rng.normal(size=(NUM, 3)), dtype), rng.integers(0, 3, NUM))
    factor = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(2, *x.shape)), dtype), params)
    prior = btl.gaussians.low_rank(params, jnp.asarray(0.5, dtype), factor)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=NUM)
    return joint.replace(prior=prior), params, data


def _built(builder, joint, params, data, batch_size=4):
    return jax.jit(lambda joint, params: builder(KEY, joint, params, data, curvature.ggn, batch_size))(joint, params)


@pytest.mark.x64
def test_all_structures_are_one_matrix():
    joint, params, data = _problem()
    size = btl.tree.size(params)
    flat, unflat = ravel_pytree(params)

    def logits(flat):
        return joint.outputs(unflat(flat), data.inputs)[0]

    jacobian, p = jax.jacobian(logits)(flat), jax.nn.softmax(logits(flat))
    hessian = p[:, :, None] * jnp.eye(3) - p[:, :, None] * p[:, None, :]
    expected = jnp.einsum("nca,ncd,ndb->ab", jacobian, hessian, jacobian)
    covariance = jax.vmap(lambda e: ravel_pytree(joint.prior.covariance_mv(unflat(e)))[0])(jnp.eye(size))
    values = np.linalg.eigvals(np.asarray(covariance @ expected)).real
    v = unflat(jnp.cos(jnp.arange(size, dtype=flat.dtype)))
    # Softmax leaves N (C - 1) = 12 directions of 38; Lanczos meets an invariant subspace and must go on from there.
    for builder in (curvature.dense(), curvature.dual(), curvature.low_rank(12, num_steps=20)):

        @jax.jit
        def queried(joint, params, builder=builder):
            found: Any = builder(KEY, joint, params, data, curvature.ggn, 4)
            assert isinstance(found, curvature.Curvature)
            return ravel_pytree(found.mv(v))[0], found.spectrum(joint.prior), found.log_det_ratio(joint.prior, 2.0)

        product, spectrum, log_det_ratio = queried(joint, params)
        np.testing.assert_allclose(product, expected @ ravel_pytree(v)[0], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(spectrum[-12:], np.sort(values)[-12:], rtol=1e-8)
        np.testing.assert_allclose(spectrum[:-12], 0, atol=1e-9 * values.max())
        np.testing.assert_allclose(log_det_ratio, np.sum(np.log1p(2 * values)), rtol=1e-8)


@pytest.mark.x64
def test_low_rank_keeps_the_leading_eigenvectors_of_the_whitened_curvature():
    joint, params, data = _problem()
    found = _built(curvature.low_rank(4), joint, params, data)
    matrix = np.asarray(_built(curvature.dense(), joint, params, data).matrix)
    unflat = ravel_pytree(params)[1]
    root = np.stack([ravel_pytree(joint.prior.unwhiten(unflat(e)))[0] for e in np.eye(len(matrix))], 1)
    values, vectors = np.linalg.eigh(root.T @ matrix @ root)
    best = np.linalg.solve(root.T, vectors[:, -4:] * values[-4:] @ vectors[:, -4:].T) @ np.linalg.inv(root)
    columns = np.stack([ravel_pytree(jax.tree.map(lambda x, i=i: x[i], found.columns))[0] for i in range(4)], 1)
    np.testing.assert_allclose(columns @ columns.T, best, rtol=1e-8, atol=1e-9 * np.abs(best).max())


def test_lanczos_stays_orthogonal_in_float32():
    # Eigenvalues from 1e-6 to 1e6: without orthogonalisation the largest would come back again and again.
    exact = np.logspace(-6, 6, 60)
    diagonal = jnp.asarray(exact, jnp.float32)
    run = jax.jit(partial(lanczos, KEY, lambda v: {"a": v["a"] * diagonal}, {"a": diagonal}, 30))
    values, vectors = run()
    q = np.asarray(vectors["a"], np.float64)
    np.testing.assert_allclose(q @ q.T, np.eye(30), atol=1e-5)
    np.testing.assert_allclose(values[-10:], exact[-10:], rtol=1e-4)


@pytest.mark.x64
def test_everything_stays_in_float32():
    joint, params, data = _problem(jnp.float32)
    for builder in (curvature.dense(), curvature.dual(), curvature.low_rank(5)):

        def run(joint, params, builder=builder):
            found = builder(KEY, joint, params, data, curvature.ggn, 4)
            return found, found.precision_update(joint.prior, params, joint.kappa, joint.temperature)

        # Under x64 the tempers are float64, beside parameters of float32.
        assert joint.kappa.dtype == jnp.float64
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(jax.eval_shape(run, joint, params)))


def test_a_part_of_the_parameters_is_a_block_of_the_whole():
    joint, params, data = _problem(jnp.float32)
    part = btl.infer.condition(joint, params, "head/**")
    whole = _built(curvature.dense(), joint, params, data).matrix
    found = _built(curvature.dense(), part.joint, part.params, data).matrix
    # The head comes last. The same numbers by another program, so equal to rounding.
    np.testing.assert_allclose(found, whole[-len(found) :, -len(found) :], rtol=1e-5, atol=1e-6)


def test_bad_ranks_are_named():
    with pytest.raises(ValueError, match="rank is 0; at least 1 eigenvector"):
        curvature.low_rank(0)
    with pytest.raises(ValueError, match="num_steps is 3, fewer than the 4 eigenvectors"):
        curvature.low_rank(4, num_steps=3)
    joint, params, data = _problem(jnp.float32)
    with pytest.raises(ValueError, match=r"low_rank\(4, num_steps=50\) asks for more than there are parameters, 38"):
        curvature.low_rank(4, num_steps=50)(KEY, joint, params, data, curvature.ggn, 4)
