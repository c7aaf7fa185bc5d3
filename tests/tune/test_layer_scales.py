"""Scales of layers: gradients against finite differences of the criteria, outcomes against ridge regressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import bayestl as btl
from bayestl.tune._by_layer import by_layer, rescaled

KEY = jax.random.key(0)


def differences(function: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-4) -> np.ndarray:
    return np.array([(function(at + step * e) - function(at - step * e)) / (2 * step) for e in np.eye(len(at))])


@pytest.mark.x64
def test_gradients_are_finite_differences_of_the_criteria_themselves():
    """A network with two layers and three classes, at parameters that are no mode, from factors that differ. Central
    differences at 1e-4 leave 1e-8 of the third derivative."""
    rng = np.random.default_rng(5)
    net = btl.nets.mlp(jax.random.key(1), (3, 4, 3))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), net.params)
    batch = btl.Batch(jnp.asarray(rng.normal(size=(9, 3))), jnp.tile(jnp.arange(3), 3))
    prior = btl.tune.isotropic_family("", btl.tree.zeros_like(params)).prior
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=9)
    groups, at = btl.tune.groups_by_class(batch.targets), np.array([0.5, -1.0])

    def rescaled(factors: np.ndarray) -> btl.LogJoint:
        each = {"dense_0": jnp.exp(factors[0]), "head": jnp.exp(factors[1])}
        tree = {name: jax.tree.map(lambda _, f=f: f, params[name]) for name, f in each.items()}
        return joint.replace(prior=prior.rescale(tree))

    fitted, layered = btl.tune.Fitted(params, None), by_layer(joint, params, batch)
    assert layered.names == ("dense_0", "head")
    for criterion, function in (
        (btl.tune.leave_out(groups), lambda factors: layered.held_out(factors, groups)),
        (btl.tune.evidence(), layered.log_evidence),
    ):

        def total(factors: np.ndarray, criterion: Any = criterion) -> float:
            return float(np.sum(criterion(KEY, rescaled(factors), fitted, batch)))

        value, gradient = function(at)
        assert value == pytest.approx(total(at), rel=1e-9)
        np.testing.assert_allclose(gradient, differences(total, at), rtol=1e-4, atol=1e-7)


@pytest.mark.x64
@pytest.mark.parametrize("rank", [0, 3])
def test_gradients_around_a_variance_for_each_parameter_and_a_low_rank_part(rank: int):
    """As above, with the covariance built anew from its parts at every factor."""
    rng = np.random.default_rng(7)
    net = btl.nets.mlp(jax.random.key(1), (3, 4, 3))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), net.params)
    batch = btl.Batch(jnp.asarray(rng.normal(size=(9, 3))), jnp.tile(jnp.arange(3), 3))
    mean = btl.tree.zeros_like(params)
    variances = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.2, 2.0, x.shape)), params)
    columns = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(max(rank, 1), *x.shape))), params)

    def prior(factors: np.ndarray) -> btl.gaussians.Gaussian:
        each = {
            name: jax.tree.map(lambda v, f=f: v * np.exp(f), variances[name])
            for name, f in zip(("dense_0", "head"), factors, strict=False)
        }
        if not rank:
            return btl.gaussians.diagonal(mean, each)
        return btl.gaussians.low_rank(mean, each, jax.tree.map(lambda z: z * np.exp(0.5 * factors[-1]), columns))

    at = np.array([0.5, -1.0, 0.7][: 3 if rank else 2])
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior(np.zeros(len(at))), num_data=9)
    groups, fitted = btl.tune.groups_by_class(batch.targets), btl.tune.Fitted(params, None)
    layered = by_layer(joint, params, batch)
    assert layered.names == ("dense_0", "head", "low rank")[: len(at)]
    covariances = [g.covariance_mv(params) for g in (prior(at), rescaled(prior(np.zeros(len(at))), layered.names, at))]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), *covariances)
    for criterion, function in (
        (btl.tune.leave_out(groups), lambda factors: layered.held_out(factors, groups)),
        (btl.tune.evidence(), layered.log_evidence),
    ):

        def total(factors: np.ndarray, criterion: Any = criterion) -> float:
            return float(np.sum(criterion(KEY, joint.replace(prior=prior(factors)), fitted, batch)))

        value, gradient = function(at)
        assert value == pytest.approx(total(at), rel=1e-9)
        np.testing.assert_allclose(gradient, differences(total, at), rtol=1e-4, atol=1e-7)


def two_layers() -> tuple[btl.LogJoint, Any, btl.Batch, np.ndarray, np.ndarray]:
    """Numbers that depend on two inputs strongly, and on six not at all; a layer for each kind."""
    rng = np.random.default_rng(6)
    inputs = rng.normal(size=(12, 8))
    targets = inputs[:, :2] @ np.array([3.0, -2.0]) + 0.3 * rng.normal(size=12)
    params = {"strong": {"w": jnp.zeros(2)}, "weak": {"w": jnp.zeros(6)}}
    net = btl.nets.from_function(lambda p, x: x[:, :2] @ p["strong"]["w"] + x[:, 2:] @ p["weak"]["w"], params)
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.3), btl.tune.isotropic_family("", params).prior, num_data=12)
    batch = btl.Batch(jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32))
    return joint, params, batch, inputs, targets


def test_a_layer_that_does_not_matter_is_held_and_scores_are_those_of_ridge_regressions():
    joint, params, batch, inputs, targets = two_layers()
    criterion = btl.tune.leave_out(np.arange(12) % 4)
    result = btl.tune.layer_scales(KEY, joint, params, batch, criterion, rounds=1, steps=200)

    def ridge_score(log_factors: np.ndarray) -> float:
        penalty, scores = np.diag(0.09 / np.exp(log_factors[np.repeat([0, 1], [2, 6])])), []
        for i in range(12):
            x, y = inputs[np.arange(12) % 4 != i % 4], targets[np.arange(12) % 4 != i % 4]
            scores.append(
                scipy.stats.norm.logpdf(targets[i], inputs[i] @ np.linalg.solve(x.T @ x + penalty, x.T @ y), 0.3)
            )
        return float(np.mean(scores))

    assert result.names == ("strong", "weak")
    assert result.log_factors[0] > 0 > result.log_factors[1]
    assert result.score > result.shared_score + 0.05
    assert result.shared_score == pytest.approx(ridge_score(np.zeros(2)), abs=2e-3)
    assert result.score == pytest.approx(ridge_score(result.log_factors), abs=2e-3)
    # No other factors near by are better, once their normal prior of deviation 2 is counted.
    objective = [
        12 * ridge_score(f) - 0.5 * np.sum((f / 2) ** 2)
        for f in (result.log_factors, *(result.log_factors + 0.3 * d for d in np.vstack([np.eye(2), -np.eye(2)])))
    ]
    assert np.argmax(objective) == 0


def test_the_evidence_climbs_too_and_never_ends_below_the_shared_scale():
    joint, params, batch, *_ = two_layers()
    result = btl.tune.layer_scales(KEY, joint, params, batch, btl.tune.evidence(), rounds=2, steps=100)
    assert result.score > result.shared_score
    assert "strong x" in str(result)
    # One step on the way to the mode, and targets of which nothing can be learned: the shared scale may stay.
    data = btl.Batch(batch.inputs, jnp.zeros(12))
    kept = btl.tune.layer_scales(KEY, joint, params, data, btl.tune.leave_out(np.arange(12) % 4), rounds=1, steps=1)
    assert kept.score >= kept.shared_score


def test_fits_without_groups_judge_what_their_closed_form_climbs():
    joint, params, batch, *_ = two_layers()
    groups = np.arange(12) % 4
    fitted, closed = (
        btl.tune.layer_scales(KEY, joint, params, batch, criterion(groups), rounds=1, steps=200)
        for criterion in (btl.tune.k_fold, btl.tune.leave_out)
    )
    # The network is linear, where the closed form is exact.
    np.testing.assert_allclose(fitted.log_factors, closed.log_factors, atol=1e-3)
    assert fitted.score == pytest.approx(closed.score, abs=2e-3)
    assert fitted.shared_score == pytest.approx(closed.shared_score, abs=2e-3)
    # All data and four fits without a group, under the shared scale and under the new ones, at three scales each.
    assert fitted.steps == 2 * 3 * 200 * 5


def test_criteria_without_a_gradient_are_refused():
    joint, params, batch, *_ = two_layers()
    criterion = btl.tune.leave_out(np.arange(12), curvature=btl.curvature.dense())
    with pytest.raises(TypeError, match="needs the gradient of its criterion"):
        btl.tune.layer_scales(KEY, joint, params, batch, criterion)
    with pytest.raises(TypeError, match="needs the gradient of its criterion"):
        btl.tune.layer_scales(KEY, joint, params, batch, btl.tune.k_fold(np.zeros(12, int)))
    correlated = btl.gaussians.dense(params, jnp.eye(8) + 0.1)
    with pytest.raises(TypeError, match="independent, or have a low-rank part"):
        btl.tune.layer_scales(KEY, joint.replace(prior=correlated), params, batch, btl.tune.leave_out(np.arange(12)))


def test_the_low_rank_part_that_matters_is_trusted_and_the_rest_is_held():
    """Of the weights, only their differences along one direction are of use; the prior has it as its low-rank part."""
    rng = np.random.default_rng(8)
    along = rng.normal(size=20) / 20**0.5
    inputs = rng.normal(size=(10, 20))
    targets = 3.0 * inputs @ along + 0.1 * rng.normal(size=10)
    params = {"w": jnp.zeros(20)}
    net = btl.nets.from_function(lambda p, x: x @ p["w"], params)
    prior = btl.gaussians.low_rank(params, 0.3, {"w": jnp.asarray(along[None], jnp.float32)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.1), prior, num_data=10)
    batch = btl.Batch(jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32))
    criterion = btl.tune.leave_out(np.arange(10) % 5)
    result = btl.tune.layer_scales(KEY, joint, params, batch, criterion, rounds=1, steps=300)
    assert result.names == ("w", "low rank")
    assert result.log_factors[1] > result.log_factors[0] + 2, result
    assert result.score > result.shared_score + 0.1
