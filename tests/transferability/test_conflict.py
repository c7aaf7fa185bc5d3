"""Conflict by layer against dense float64 algebra, and its tension against the evidence itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

PARAMS = {"body": {"bias": jnp.array([0.3]), "kernel": jnp.array([1.0, -2.0])}, "head": jnp.array([0.5, 0.5, 4.0])}
MEAN = {"body": {"bias": jnp.array([0.1]), "kernel": jnp.array([0.5, 0.0])}, "head": jnp.zeros(3)}
FACTOR = {
    "body": {"bias": jnp.array([[1.0], [0.5]]), "kernel": jnp.array([[0.3, -1.0], [2.0, 0.0]])},
    "head": jnp.array([[0.0, 1.0, 1.0], [-1.0, 0.5, 0.0]]),
}
PRIOR = btl.gaussians.low_rank(MEAN, 0.25, FACTOR)


def _flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).reshape(*np.shape(leaf)[:-1], -1).T for leaf in tree]).T


def test_layers_against_dense_marginals():
    result = btl.transferability.conflict(PRIOR, PARAMS)
    assert [layer.layer for layer in result.layers] == ["body", "head"]
    factor = np.concatenate([np.asarray(x, np.float64) for x in jax.tree.leaves(FACTOR)], axis=1)
    covariance = 0.25 * np.eye(6) + factor.T @ factor
    moved = np.concatenate([np.asarray(a - b) for a, b in zip(*map(jax.tree.leaves, (PARAMS, MEAN)), strict=True)])
    for layer, rows in zip(result.layers, (slice(0, 3), slice(3, 6)), strict=True):
        part, delta = covariance[rows, rows], moved[rows]
        assert layer.mahalanobis == pytest.approx(delta @ np.linalg.solve(part, delta) / 3, rel=1e-5)
        assert layer.moved == pytest.approx(np.sqrt(np.mean(delta**2)), rel=1e-6)
        assert layer.scale == pytest.approx(np.sqrt(np.trace(part) / 3), rel=1e-6)
        # Within the span of the two columns, in units of the base, which here is the same for all.
        span = np.linalg.qr(factor[:, rows].T)[0]
        assert layer.inside == pytest.approx(np.sum((span.T @ delta) ** 2) / np.sum(delta**2), rel=1e-4)
        assert layer.expected_inside == pytest.approx(np.trace(span.T @ part @ span) / np.trace(part), rel=1e-5)
        assert np.isnan(layer.determined)
    assert result.worst.layer == "head"
    assert "inside (expected)" in str(result)


@pytest.mark.x64
def test_tension_is_where_the_evidence_asks_for_a_wider_prior():
    """On a linear-normal model the evidence is exact, and its derivative in the log variance of a layer is half of
    the squared distance less the directions determined."""
    rng = np.random.default_rng(0)
    inputs, targets = jnp.asarray(rng.normal(size=(12, 5))), jnp.asarray(3 * rng.normal(size=12))
    net = btl.nets.from_function(
        lambda p, x: x[:, :2] @ p["a"]["w"] + x[:, 2:] @ p["b"]["w"],
        {"a": {"w": jnp.zeros(2)}, "b": {"w": jnp.zeros(3)}},
    )
    batch, key = btl.Batch(inputs, targets), jax.random.key(0)

    def evidence(log_variances: np.ndarray) -> float:
        blocks = np.repeat(np.exp(log_variances), [2, 3])
        covariance = np.asarray(inputs) @ np.diag(blocks) @ np.asarray(inputs).T + np.eye(12)
        y = np.asarray(targets)
        return -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(covariance)[1])

    logs = np.log([0.3, 2.0])
    prior = btl.gaussians.diagonal(net.params, {"a": {"w": jnp.full(2, 0.3)}, "b": {"w": jnp.full(3, 2.0)}})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=12)
    precision = np.diag(1 / np.repeat(np.exp(logs), [2, 3])) + np.asarray(inputs.T @ inputs)
    flat = jnp.asarray(np.linalg.solve(precision, np.asarray(inputs.T @ targets)))
    mode = {"a": {"w": flat[:2]}, "b": {"w": flat[2:]}}
    posterior = btl.infer.laplace(key, joint, mode, batch)
    result = btl.transferability.conflict(prior, mode, posterior=posterior)
    for i, layer in enumerate(result.layers):
        step = np.eye(2)[i] * 1e-5
        slope = (evidence(logs + step) - evidence(logs - step)) / 2e-5
        distance = layer.mahalanobis * layer.size
        assert 0.5 * (distance - layer.determined) == pytest.approx(slope, rel=1e-6)
        assert layer.tension == pytest.approx(distance / layer.determined)
    assert "tension" in str(result)


def test_chosen_layers_and_independent_blocks():
    prior = btl.gaussians.by_path({"head": btl.gaussians.isotropic(MEAN, 2.0), "**": PRIOR})
    result = btl.transferability.conflict(prior, PARAMS, layers=["**/kernel", "head", "**"])
    kernel, head, everything = result.layers
    assert (kernel.size, head.size, everything.size) == (2, 3, 6)
    assert np.isnan(head.inside)
    assert not np.isnan(everything.inside)
    assert head.mahalanobis == pytest.approx((0.25 + 0.25 + 16) / 4 / 3)


def test_bad_input():
    with pytest.raises(TypeError, match="prior is a NoneType"):
        btl.transferability.conflict(None, PARAMS)
    with pytest.raises(ValueError, match="params and prior differ at 'head'"):
        btl.transferability.conflict(PRIOR, {**PARAMS, "head": jnp.zeros(2)})
    with pytest.raises(ValueError, match="matches no parameter"):
        btl.transferability.conflict(PRIOR, PARAMS, layers=["tail"])
    with pytest.raises(TypeError, match="posterior is a Point"):
        btl.transferability.conflict(PRIOR, PARAMS, posterior=btl.Point(PARAMS))
