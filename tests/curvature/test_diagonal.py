"""The diagonal of a curvature against explicit Jacobians."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import layer_networks as networks
import linear_gaussian as lg
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import bayestl as btl
from bayestl import curvature

pytestmark = pytest.mark.optimized  # what XLA makes of these programs is what they are about

KEY = jax.random.key(0)
NETWORKS = {
    "mlp": networks.mlp,
    "pictures": networks.pictures,
    "sequence": networks.sequence,
    "odd": networks.odd,
    "tokens": networks.tokens,
    "tied": networks.tied,
    "scans": networks.scans,
}


def explicit(problem: networks.Problem, mask: Any = None) -> np.ndarray:
    """``sum_n J_n^T H_n J_n``, (D, D), from the whole Jacobian and the output Hessians written out."""
    flat, unflat = ravel_pytree(problem.params)
    outputs = jax.jit(lambda flat: problem.joint.outputs(unflat(flat), problem.data.inputs)[0])
    f, jacobian = np.asarray(outputs(flat)), np.asarray(jax.jit(jax.jacrev(outputs))(flat))
    if isinstance(problem.joint.likelihood, btl.likelihoods.Normal):
        hessian = np.broadcast_to(np.eye(f.shape[1]) / 0.25, (len(f), f.shape[1], f.shape[1]))
    else:
        p = np.exp(f - f.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        hessian = p[:, :, None] * np.eye(f.shape[1]) - p[:, :, None] * p[:, None, :]
    if mask is not None:
        hessian = hessian * np.asarray(mask)[:, None, None]
    return np.einsum("nca,ncd,ndb->ab", jacobian, hessian, jacobian, optimize=True)


def built(builder: Any, problem: networks.Problem, kind: Any = curvature.ggn, batch_size: int = 2) -> Any:
    return jax.jit(lambda params: builder(KEY, problem.joint, params, problem.data, kind, batch_size))(problem.params)


@pytest.mark.x64
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_diagonal(name):
    problem = NETWORKS[name]()
    truth = np.diag(explicit(problem))
    found = built(curvature.diagonal(), problem).diagonal
    assert jax.tree.structure(found) == jax.tree.structure(problem.params)
    # Flax computes the softmax of attention in float32, whatever it is given.
    rtol = 1e-5 if name == "pictures" else 1e-9
    np.testing.assert_allclose(ravel_pytree(found)[0], truth, rtol=rtol, atol=1e-3 * rtol * truth.max())


@pytest.mark.x64
def test_the_mask_and_other_kinds():
    problem = networks.sequence()
    mask = jnp.array([1, 0, 1, 1, 0])
    inputs = problem.data.inputs.at[1].set(jnp.nan)
    masked = problem._replace(data=btl.Batch(inputs, problem.data.targets, mask))
    truth = np.diag(explicit(problem, mask))
    found = built(curvature.diagonal(), masked).diagonal
    np.testing.assert_allclose(ravel_pytree(found)[0], truth, rtol=1e-9, atol=1e-12 * truth.max())
    # The same key draws the same labels as for the other structures, in batches of the same size.
    for kind in (curvature.empirical_fisher, curvature.fisher(2)):
        truth = np.diag(built(curvature.dense(), problem, kind).matrix)
        found = built(curvature.diagonal(), problem, kind).diagonal
        np.testing.assert_allclose(ravel_pytree(found)[0], truth, rtol=1e-9, atol=1e-12 * truth.max())


def test_low_precision_networks():
    """bfloat16 keeps 8 bits: relative errors of some of them add up over a few layers."""
    problem = networks.make(btl.nets.mlp(KEY, (3, 8, 3)), networks.normal(5, 3).astype(np.float32), 3, jnp.float32)
    joint = problem.joint
    cast = btl.nets.cast(btl.Net(problem.params, joint.state, joint.apply), jnp.bfloat16)
    rough = problem._replace(joint=btl.LogJoint(cast, joint.likelihood, None, num_data=5))
    truth, found = (built(curvature.diagonal(), p).diagonal for p in (problem, rough))
    assert {x.dtype.name for x in jax.tree.leaves(found)} == {"float32"}
    assert not curvature.find_layers(rough.joint, rough.params, rough.data.inputs).fallbacks
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
        np.testing.assert_allclose(x, y, rtol=0.1, atol=0.03 * np.max(y))


# ---------------------------------------------------------------- with a prior


@pytest.mark.x64
@pytest.mark.parametrize("structure", lg.STRUCTURES, ids=lambda s: s.name)
def test_posterior_and_evidence_under_every_prior(structure):
    """On a linear-Gaussian problem: all but the correlations of the data, at any kappa and T."""
    problem = lg.draw(structure, 8, 12, seed=4)
    joint = lg.joint(structure, problem, kappa=0.6, temperature=1.7)
    params = lg.tree(jnp.asarray(problem.mean))
    prior = structure.covariance(problem.prior[1])
    h = np.sum(np.asarray(problem.inputs) ** 2, 0) / problem.noise**2
    truth = 1.7 * np.linalg.inv(0.6 * np.diag(h) + np.linalg.inv(prior))

    @jax.jit
    def queried(joint, params):
        found: Any = curvature.diagonal()(KEY, joint, params, lg.data(problem), curvature.ggn, 5)
        assert isinstance(found, curvature.Curvature)
        g = found.precision_update(joint.prior, params, joint.kappa, joint.temperature)
        units = jax.vmap(lg.tree)(jnp.eye(8))
        columns = jax.vmap(g.covariance_mv)(units)
        return g.mean, columns, found.log_det_ratio(joint.prior, joint.kappa), found.mv(params)

    mean, columns, ratio, product = queried(joint, params)
    np.testing.assert_allclose(
        jax.vmap(lambda c: jnp.concatenate([c["a/head"], c["body"]["kernel"].ravel()]))(columns),
        truth,
        rtol=1e-8,
        atol=1e-9,
    )
    np.testing.assert_array_equal(lg.flat(mean), problem.mean)
    np.testing.assert_allclose(ratio, np.linalg.slogdet(np.eye(8) + 0.6 * prior @ np.diag(h))[1], rtol=1e-9)
    np.testing.assert_allclose(lg.flat(product), h * problem.mean, rtol=1e-9)


def test_the_flat_prior():
    params = {"unused": jnp.ones(2), "w": jnp.ones((3, 2))}
    net = btl.nets.from_function(lambda params, x: x @ params["w"], params)
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.5), None, num_data=4)
    data = btl.data.arrays(networks.normal(4, 3).astype(np.float32), jnp.zeros((4, 2)))
    found: Any = curvature.diagonal()(KEY, joint, params, data, curvature.ggn, 4)
    variance = found.precision_update(None, params, 2.0, 3.0).variance
    truth = 3 / (2 * np.sum(networks.normal(4, 3) ** 2, 0) / 0.25)
    np.testing.assert_allclose(variance["w"], np.stack([truth, truth], 1), rtol=1e-5)
    assert np.all(np.isnan(variance["unused"]))
    with pytest.raises(ValueError, match="not positive definite under the flat prior: no finite variance at 'unused'"):
        btl.infer.laplace(KEY, joint, params, data, curvature=curvature.diagonal())


def test_a_prior_without_a_closed_form_is_named():
    params = {"w": jnp.ones((65, 65))}
    net = btl.nets.from_function(lambda params, x: x @ params["w"], params)
    prior = btl.gaussians.kronecker(params, {"w": jnp.eye(65)}, {"w": jnp.eye(65)})
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=2)
    data = btl.data.arrays(jnp.ones((2, 65)), jnp.zeros(2, int))
    with pytest.raises(TypeError, match="diagonal precision on top of a Kronecker Gaussian has no closed form"):
        btl.infer.laplace(KEY, joint, params, data, curvature=curvature.diagonal())
    found: Any = curvature.diagonal()(KEY, joint, params, data, curvature.ggn, 2)
    with pytest.raises(TypeError, match="diagonal precision on top of a Kronecker Gaussian has no closed form"):
        found.log_det_ratio(prior, 1.0)


def test_small_batches_hold_what_they_may(monkeypatch):
    """However few numbers may be held at once, the sum is the same."""
    problem = networks.make(btl.nets.conv_net(KEY, (4, 4, 1), (2,), 3), networks.normal(5, 4, 4, 1), 3, jnp.float32)
    once = built(curvature.diagonal(), problem, batch_size=5).diagonal
    monkeypatch.setattr("bayestl.curvature._layers._ON_CPU", 1)
    each = built(curvature.diagonal(), problem, batch_size=5).diagonal
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), once, each)
