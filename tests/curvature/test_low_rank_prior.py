"""Kronecker-factored curvature under priors with a low-rank part, against dense algebra with the same H."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import layer_networks as networks
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import bayestl as btl
from bayestl import curvature, gaussians
from bayestl.predict._layered import is_layered

KEY = jax.random.key(0)


def _matrix(mv: Any, like: Any) -> np.ndarray:
    flat, unflat = ravel_pytree(like)
    return np.asarray(jax.jit(jax.vmap(lambda e: ravel_pytree(mv(unflat(e)))[0]))(jnp.eye(flat.size, dtype=flat.dtype)))


def _columns(params: Any, rank: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(rank, *x.shape)), x.dtype), params)


def _scales(params: Any) -> Any:
    """One number per leaf, other for every one: the bias of a layer has not the scale of its weights."""
    leaves, treedef = jax.tree.flatten(params)
    return jax.tree.unflatten(treedef, [jnp.asarray(0.3 + 0.2 * i, x.dtype) for i, x in enumerate(leaves)])


def _whole(params: Any) -> gaussians.Gaussian:
    return gaussians.low_rank(params, _scales(params), _columns(params, 3))


def _by_path(params: Any) -> gaussians.Gaussian:
    """Two low-rank blocks and one without, of which one is within another."""
    first, *rest = btl.tree.paths(params)
    second = gaussians.low_rank(params, 0.5, _columns(params, 2, 1))
    both = btl.tree.select(params, [first, rest[-1]])
    inner = gaussians.by_path({first: _whole(params), rest[-1]: second}, like=both)
    return gaussians.by_path({first: inner, rest[-1]: inner, "**": gaussians.isotropic(params, _scales(params))})


def _posterior_of_before(params: Any) -> gaussians.Gaussian:
    """What came out of a low-rank Laplace approximation: negative and positive eigenvalues."""
    return _whole(params).add_precision(_columns(params, 2, 2))


def _collinear(params: Any) -> gaussians.Gaussian:
    """Zero columns among the basis."""
    factor = jax.tree.map(lambda f: jnp.stack([f[0], f[1], 2 * f[0], 0 * f[0]]), _columns(params, 2))
    return gaussians.low_rank(params, _scales(params), factor)


def _per_row(params: Any) -> gaussians.Gaussian:
    """A variance for every row of a matrix: for every input of a layer."""

    def variances(x: Any) -> Any:
        return jnp.linspace(0.2, 0.9, len(x), dtype=x.dtype)[:, None] if x.ndim == 2 else jnp.asarray(0.4, x.dtype)

    return gaussians.low_rank(params, jax.tree.map(variances, params), _columns(params, 2))


PRIORS = {
    "per row": _per_row,
    "whole": _whole,
    "by path": _by_path,
    "negative": _posterior_of_before,
    "collinear": _collinear,
}


def _conv_net() -> networks.Problem:
    net = btl.nets.conv_net(KEY, (4, 4, 2), (3,), num_classes=3, activation=jnp.tanh)
    return networks.make(net, networks.normal(5, 4, 4, 2), 3)


PROBLEMS = {"mlp": networks.mlp, "conv net": _conv_net, "odd": networks.odd}
BIASES = {"joined": curvature.joined, "separate": curvature.separate}


@lru_cache
def _found(problem: str, bias: str) -> tuple[Any, Any, np.ndarray]:
    joint, params, data = PROBLEMS[problem]()
    build = curvature.kronecker(bias=BIASES[bias])
    found = jax.jit(lambda params: build(KEY, joint, params, data, curvature.ggn, 3))(params)
    return found, params, _matrix(found.mv, params)


def _check(posterior: Any, params: Any, truth: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(
        _matrix(posterior.covariance_mv, params), truth, rtol=tolerance, atol=tolerance * np.max(np.abs(truth))
    )
    log_det = jax.jit(lambda g: g.log_det_covariance())(posterior)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(truth)[1], rtol=tolerance)
    root = _matrix(posterior.unwhiten, params).T
    np.testing.assert_allclose(root @ root.T, truth, rtol=tolerance, atol=tolerance * np.max(np.abs(truth)))
    jax.tree.map(np.testing.assert_array_equal, posterior.mean, params)


GRID = [("mlp", "joined", name) for name in PRIORS]
GRID += [("conv net", "joined", "negative"), ("conv net", "separate", "by path"), ("odd", "joined", "whole")]


@pytest.mark.x64
@pytest.mark.representative("conv net-separate-by path", "mlp-joined-negative", "mlp-joined-collinear")
@pytest.mark.parametrize(("problem", "bias", "name"), GRID)
def test_posterior_and_evidence_are_those_of_dense_algebra(problem, bias, name):
    """At (kappa, T) = (2, 0.3), and at kappa = 0, where it is the prior."""
    found, params, h = _found(problem, bias)
    prior = PRIORS[name](params)
    sigma = _matrix(prior.covariance_mv, params)

    @jax.jit
    def queried(prior, power):
        return found.precision_update(prior, params, power, 0.3), found.log_det_ratio(prior, power)

    for power in (2.0, 0.0):
        posterior, ratio = queried(prior, power)
        assert isinstance(posterior, gaussians.LowRank)
        _check(posterior, params, 0.3 * np.linalg.inv(power * h + np.linalg.inv(sigma)), 1e-8)
        truth = np.linalg.slogdet(np.eye(len(h)) + power * sigma @ h)[1]
        np.testing.assert_allclose(ratio, truth, rtol=1e-8, atol=1e-10)


@pytest.mark.x64
@pytest.mark.parametrize("name", ["by path", "negative"])
def test_gradient_of_the_evidence(name):
    """In the scales of the prior and in the power, by differences of dense algebra."""
    found, params, h = _found("mlp", "joined")
    base = PRIORS[name](params)
    paths = btl.tree.paths(params)

    def rescaled(x):
        return base.rescale(jax.tree.unflatten(jax.tree.structure(params), list(jnp.exp(x[:-1]))))

    def ours(x):
        return found.log_det_ratio(rescaled(x), jnp.exp(x[-1]))

    def dense(x):
        sigma = _matrix(rescaled(x).covariance_mv, params)
        return np.linalg.slogdet(np.eye(len(h)) + np.exp(x[-1]) * sigma @ h)[1]

    at = 0.1 * np.arange(len(paths) + 1)
    gradient = jax.jit(jax.grad(ours))(at)
    for i, e in enumerate(1e-5 * np.eye(len(at))):
        np.testing.assert_allclose(gradient[i], (dense(at + e) - dense(at - e)) / 2e-5, rtol=1e-6, atol=1e-7)


@pytest.mark.x64
def test_laplace_and_the_evidence_of_a_log_joint():
    joint, params, data = _conv_net()
    prior = _by_path(params)
    joint = joint.replace(prior=prior, kappa=0.7, temperature=1.3)
    build = curvature.kronecker()
    h = _matrix(_found("conv net", "joined")[0].mv, params)
    posterior = btl.infer.laplace(KEY, joint, params, data, curvature=build)
    sigma = _matrix(prior.covariance_mv, params)
    _check(posterior, params, 1.3 * np.linalg.inv(0.7 * h + np.linalg.inv(sigma)), 1e-8)
    evidence = btl.infer.log_evidence(KEY, joint, params, data, curvature=build)
    likelihood = np.sum(joint.log_likelihoods(params, btl.Batch(data.inputs, data.targets)))
    r = np.asarray(ravel_pytree(params)[0] - ravel_pytree(prior.mean)[0])
    truth = (0.7 * likelihood - 0.5 * r @ np.linalg.solve(sigma, r)) / 1.3
    truth -= 0.5 * np.linalg.slogdet(np.eye(len(h)) + 0.7 * sigma @ h)[1]
    np.testing.assert_allclose(evidence, truth, rtol=1e-8)


@pytest.mark.x64
def test_a_part_of_the_parameters():
    """The prior conditioned on the rest."""
    joint, params, data = networks.mlp()
    prior = _whole(params)
    posterior = btl.infer.laplace(
        KEY, joint.replace(prior=prior), params, data, curvature=curvature.kronecker(), selection="head/**"
    )
    part = btl.tree.select(params, "head/**")
    conditional = prior.condition(params, "head/**")
    alone = btl.infer.laplace(
        KEY, joint.replace(prior=gaussians.isotropic(params, 1.0)), params, data, curvature=curvature.kronecker(),
        selection="head/**",
    )  # fmt: skip
    h = np.linalg.inv(_matrix(alone.part.covariance_mv, part)) - np.eye(btl.tree.size(part))
    sigma = _matrix(conditional.covariance_mv, part)
    _check(posterior.part, part, np.linalg.inv(h + np.linalg.inv(sigma)), 1e-8)


@pytest.mark.x64
def test_the_posterior_is_a_prior():
    """Of a next task with low-rank curvature, and a log density to any other."""
    joint, params, data = networks.mlp()
    posterior = btl.infer.laplace(
        KEY, joint.replace(prior=_whole(params)), params, data, curvature=curvature.kronecker()
    )
    again = btl.infer.laplace(KEY, joint.replace(prior=posterior), params, data, curvature=curvature.dual())
    whole: Any = curvature.dense()(KEY, joint, params, data, curvature.ggn, 5)
    h = np.asarray(whole.matrix)
    truth = np.linalg.inv(h + np.linalg.inv(_matrix(posterior.covariance_mv, params)))
    assert isinstance(again, gaussians.LowRank)
    _check(again, params, truth, 1e-8)


@pytest.mark.parametrize("lam", [[1e8, 1e6, 1e3, 3.0], [1e4, 2.0, -0.5, -0.999]])
def test_float32_at_sharp_priors(lam):
    """A diagonal part of 1e-8, and eigenvalues of which the data measure some and not others.

    Eigenvalues come from singular values of roots with entries up to 1: theirs are off by some eps, and 1e8 is the
    inverse square of 1e-4, so that the standard deviation there is off by some eps / 1e-4 = 1e-3; 1e-2 is allowed.
    """
    joint, params, data = networks.mlp()
    params, joint = jax.tree.map(lambda x: jnp.asarray(x).astype(jnp.float32), (params, joint))
    rng, size = np.random.default_rng(5), btl.tree.size(params)
    columns = jax.vmap(ravel_pytree(params)[1])(jnp.asarray(np.linalg.qr(rng.normal(size=(size, 4)))[0].T, jnp.float32))
    base = gaussians.Diagonal(params, jax.tree.map(lambda x: jnp.float32(1e-8), params))
    prior = gaussians.LowRank(base, columns, jnp.array(lam))
    found = curvature.kronecker()(KEY, joint, params, data, curvature.ggn, 3)
    h = _matrix(found.mv, params).astype(np.float64)
    basis = np.asarray(jax.vmap(lambda c: ravel_pytree(c)[0])(columns), np.float64)
    sigma = float(np.float32(1e-8)) * (np.eye(size) + basis.T @ np.diag(lam) @ basis)
    for power in (1.0, 1e3, 1e6, 1e9):
        truth = np.linalg.inv(power * 0.5 * (h + h.T) + np.linalg.inv(sigma))
        posterior, ratio = _queried(found, prior, params, power)
        root = _matrix(posterior.unwhiten, params).T.astype(np.float64)
        deviations = np.linalg.svd(np.linalg.solve(np.linalg.cholesky(truth), root), compute_uv=False)
        np.testing.assert_allclose(deviations, 1, atol=1e-2)
        true_ratio = np.linalg.slogdet(np.eye(size) + power * sigma @ h)[1]
        np.testing.assert_allclose(ratio, true_ratio, rtol=1e-3, atol=1e-3)


@jax.jit
def _queried(found: Any, prior: Any, params: Any, power: Any) -> Any:
    return found.precision_update(prior, params, power, 1.0), found.log_det_ratio(prior, power)


@pytest.mark.x64
@pytest.mark.parametrize(("problem", "name"), [("mlp", "whole"), ("conv net", "whole"), ("mlp", "negative")])
def test_linearised_predictions(problem, name):
    """Layer by layer; with rows of all parameters where the columns take most of the covariance away."""
    joint, params, data = PROBLEMS[problem]()
    posterior = btl.infer.laplace(
        KEY, joint.replace(prior=PRIORS[name](params)), params, data, curvature=curvature.kronecker()
    )
    assert is_layered(posterior) == (name == "whole")
    given = btl.predict.linearized(joint, posterior, lambda outputs: outputs)(data.inputs)
    flat, unflat = ravel_pytree(params)
    jac = jax.jit(jax.jacrev(lambda v: joint.outputs(unflat(v), data.inputs)[0]))(flat)
    truth = jac @ _matrix(posterior.covariance_mv, params) @ jnp.swapaxes(jac, 1, 2)
    np.testing.assert_allclose(given.covariance[0], truth, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (
            lambda params: gaussians.low_rank(params, jax.tree.map(jnp.ones_like, params), _columns(params, 1)),
            r"with a low-rank part or without, .*'.*' has more than one variance in a row of its matrix",
        ),
        (
            lambda params: gaussians.LowRank(_whole(params), _columns(params, 1), jnp.ones(1)),
            "belongs to a LowRank Gaussian; .*dense.. with every prior",
        ),
    ],
)
def test_other_priors_are_refused(prior, message):
    joint, params, data = networks.mlp()
    with pytest.raises(ValueError, match=message):
        btl.infer.laplace(KEY, joint.replace(prior=prior(params)), params, data, curvature=curvature.kronecker())
