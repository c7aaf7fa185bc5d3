"""Gram matrices of the linearised network against explicit Jacobians."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl


def explicit(net: btl.Net, params: dict, variance: dict, inputs: jax.Array) -> np.ndarray:
    """``J diag(v) J^T`` by jacrev."""
    jacobian = jax.jacrev(lambda params: net(params, inputs).ravel())(params)
    rows = [np.asarray(j, float).reshape(len(j), -1) for j in jax.tree.leaves(jacobian)]
    spread = [
        np.broadcast_to(np.asarray(v), p.shape).ravel()
        for v, p in zip(*map(jax.tree.leaves, (variance, params)), strict=True)
    ]
    return sum(j * v @ j.T for j, v in zip(rows, spread, strict=True))


@pytest.mark.x64
@pytest.mark.parametrize("kind", ["dense", "convolutional"])
def test_layer_by_layer_it_is_that_of_the_jacobians(kind: str):
    if kind == "dense":
        net, inputs = btl.nets.mlp(jax.random.key(0), (3, 4, 2)), jax.random.normal(jax.random.key(1), (5, 3))
    else:
        net = btl.nets.conv_net(jax.random.key(0), (6, 6, 1), (2,), 2)
        inputs = jax.random.normal(jax.random.key(1), (3, 6, 6, 1))
    prior = btl.gaussians.isotropic(net.params, jax.tree.map(lambda x: 0.5 + 0.1 * x.ndim, net.params))
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=5)
    gram = btl.tune.outputs_gram(joint, prior, net.params, inputs)
    np.testing.assert_allclose(gram, explicit(net, net.params, prior.diagonal, inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.x64
def test_correlated_priors_go_through_the_jacobians():
    net, inputs = btl.nets.mlp(jax.random.key(0), (3, 4, 2)), jax.random.normal(jax.random.key(1), (5, 3))
    factor = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), (2, *x.shape)), net.params)
    prior = btl.gaussians.low_rank(net.params, jax.tree.map(jnp.ones_like, net.params), factor)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=5)
    gram = btl.tune.outputs_gram(joint, prior, net.params, inputs)
    jacobian = jax.jacrev(lambda params: net(params, inputs).ravel())(net.params)
    rows = np.hstack([np.asarray(j).reshape(10, -1) for j in jax.tree.leaves(jacobian)])
    columns = np.hstack([np.asarray(f).reshape(2, -1) for f in jax.tree.leaves(factor)])
    np.testing.assert_allclose(gram, rows @ rows.T + (rows @ columns.T) @ (rows @ columns.T).T, rtol=1e-5, atol=1e-6)
