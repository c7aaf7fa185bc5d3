"""Leave-group-out predictions in closed form against fits without the group."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import bayestl as btl

RNG = np.random.default_rng(0)


def linear_net(num_inputs: int, num_outputs: int) -> btl.Net:
    return btl.nets.from_function(
        lambda params, x: x @ params["w"] + params["b"],
        {"w": jnp.zeros((num_inputs, num_outputs)), "b": jnp.zeros(num_outputs)},
    )


@pytest.mark.x64
@pytest.mark.parametrize("weights", [None, RNG.choice([0.25, 1.0, 4.0], 9)], ids=["", "weighted"])
@pytest.mark.parametrize("curvature", [None, btl.curvature.dense()], ids=["dual", "dense"])
@pytest.mark.parametrize("where", ["mode", "anywhere"])
def test_it_is_exact_for_linear_networks_with_normal_noise_from_any_parameters(
    where: str, curvature: Any, weights: np.ndarray | None
):
    """Ridge regression without each group, solved anew in numpy; 2 outputs, unequal groups, one example kept."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    groups, noise, scale, kappa = np.array([0, 0, 0, 1, 1, 2, 2, 2, -1]), 0.7, 1.3, 1.5
    net, mean = linear_net(3, 2), {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)}
    design, start = np.hstack([inputs, np.ones((9, 1))]), np.vstack([mean["w"], mean["b"]])
    counts = kappa * (np.ones(9) if weights is None else weights)

    def ridge(rows: np.ndarray) -> np.ndarray:
        x, residual = design[rows], targets[rows] - design[rows] @ start
        weighted = x.T * counts[rows]
        return start + np.linalg.solve(weighted @ x + np.eye(4) * noise**2 / scale**2, weighted @ residual)

    prior = btl.gaussians.isotropic(jax.tree.map(jnp.asarray, mean), scale)
    joint = btl.LogJoint(net, btl.likelihoods.normal(noise), prior, num_data=9, kappa=kappa)
    at = ridge(np.ones(9, bool)) if where == "mode" else 3 * rng.normal(size=(4, 2))
    fitted = btl.tune.Fitted({"w": jnp.asarray(at[:3]), "b": jnp.asarray(at[3])}, None)
    batch = btl.Batch(jnp.asarray(inputs), jnp.asarray(targets), None if weights is None else jnp.asarray(weights))
    scores = btl.tune.leave_out(groups, curvature=curvature)(jax.random.key(0), joint, fitted, batch)
    expected = np.array(
        [
            scipy.stats.norm.logpdf(targets[i], design[i] @ ridge(groups != groups[i]), noise).sum()
            for i in range(9)
            if groups[i] >= 0
        ]
    )
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-10)
    made = btl.tune.leave_out(groups, curvature=curvature).predictions(jax.random.key(0), joint, fitted, batch)
    assert made.rows.tolist() == list(range(8))
    outputs = np.stack([design[i] @ ridge(groups != groups[i]) for i in range(8)])
    np.testing.assert_allclose(made.outputs, outputs, rtol=0, atol=1e-9)


def softmax_mode(design: np.ndarray, labels: np.ndarray, rows: np.ndarray, scale: float) -> np.ndarray:
    """The mode of softmax regression under N(0, scale^2 I), by scipy."""
    shape = (design.shape[1], 3)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        logits = design[rows] @ weights
        log_p = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
        residual = np.exp(log_p) - np.eye(3)[labels[rows]]
        value = -log_p[np.arange(rows.sum()), labels[rows]].sum() + 0.5 * np.sum(weights**2) / scale**2
        return value, (design[rows].T @ residual + weights / scale**2).ravel()

    return scipy.optimize.minimize(loss, np.zeros(np.prod(shape)), jac=True, tol=1e-12).x.reshape(shape)


@pytest.mark.x64
@pytest.mark.parametrize("scale", [0.3, 3.0, 100.0])
def test_for_classes_a_linear_network_is_fitted_anew(scale: float):
    """Softmax regression without each group, by scipy, from parameters that are far from the mode: under narrow priors,
    and under wide ones, where predictions are sure of themselves. 1e-4 is what scipy's gradients of 1e-7 leave."""
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(12, 2)), np.tile(np.arange(3), 4)
    design = np.hstack([inputs, np.ones((12, 1))])
    groups = btl.tune.groups_by_class(labels)
    net, batch = linear_net(2, 3), btl.Batch(jnp.asarray(inputs), jnp.asarray(labels))
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), scale)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=12)
    fitted = btl.tune.Fitted({"w": jnp.asarray(rng.normal(size=(2, 3))), "b": jnp.asarray(rng.normal(size=3))}, None)
    scores = btl.tune.leave_out(groups)(jax.random.key(0), joint, fitted, batch)
    logits = np.stack([design[i] @ softmax_mode(design, labels, groups != groups[i], scale) for i in range(12)])
    expected = scipy.special.log_softmax(logits, axis=1)[np.arange(12), labels]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    made = btl.tune.leave_out(groups).predictions(jax.random.key(0), joint, fitted, batch)
    np.testing.assert_allclose(
        scipy.special.softmax(made.outputs, axis=1), scipy.special.softmax(logits, axis=1), atol=1e-4
    )


@pytest.mark.x64
@pytest.mark.parametrize("groups", [np.arange(9), np.arange(9) % 3], ids=["one by one", "groups"])
@pytest.mark.parametrize("curvature", [None, btl.curvature.dense()], ids=["dual", "dense"])
def test_a_selection_moves_alone(curvature: Any, groups: np.ndarray):
    """A last layer on fixed features: ridge regression on them without each group, from a head that is no mode."""
    rng = np.random.default_rng(2)
    inputs, targets, noise, scale = rng.normal(size=(9, 3)), rng.normal(size=(9, 2)), 0.7, 1.3
    params = {"body": rng.normal(size=(3, 4)), "head": rng.normal(size=(4, 2))}
    net = btl.nets.from_function(
        lambda params, x: jnp.tanh(x @ params["body"]) @ params["head"], jax.tree.map(jnp.asarray, params)
    )
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), scale)
    joint = btl.LogJoint(net, btl.likelihoods.normal(noise), prior, num_data=9)
    criterion = btl.tune.leave_out(groups, curvature=curvature, selection="head")
    batch = btl.Batch(jnp.asarray(inputs), jnp.asarray(targets))
    scores = criterion(jax.random.key(0), joint, btl.tune.Fitted(net.params, None), batch)
    features, expected = np.tanh(inputs @ params["body"]), []
    for i in range(9):
        x, y = features[groups != groups[i]], targets[groups != groups[i]]
        head = np.linalg.solve(x.T @ x + np.eye(4) * noise**2 / scale**2, x.T @ y)
        expected.append(scipy.stats.norm.logpdf(targets[i], features[i] @ head, noise).sum())
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-10)


@pytest.mark.x64
def test_one_step_for_classes_is_off_by_the_square_of_what_it_moves():
    """A quarter of the prior's variance moves a quarter as far, and is off by a sixteenth. Each example by itself."""
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(12, 2)), np.tile(np.arange(3), 4)
    design, groups = np.hstack([inputs, np.ones((12, 1))]), np.arange(12)
    net, batch = linear_net(2, 3), btl.Batch(jnp.asarray(inputs), jnp.asarray(labels))
    errors = []
    for scale in (0.4, 0.2):
        mode = softmax_mode(design, labels, np.ones(12, bool), scale)
        prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), scale)
        joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=12)
        fitted = btl.tune.Fitted({"w": jnp.asarray(mode[:2]), "b": jnp.asarray(mode[2])}, None)
        criterion = btl.tune.leave_out(groups, curvature=btl.curvature.dense())
        scores = criterion(jax.random.key(0), joint, fitted, batch)
        logits = np.stack([design[i] @ softmax_mode(design, labels, groups != i, scale) for i in range(12)])
        errors.append(np.max(np.abs(scores - scipy.special.log_softmax(logits, axis=1)[np.arange(12), labels])))
    assert 1e-6 < errors[0] < 0.02
    assert errors[1] < errors[0] / 8  # the tolerance of scipy's modes takes a little of the sixteenth


@pytest.mark.x64
@pytest.mark.parametrize("structure", [btl.curvature.diagonal(), btl.curvature.kronecker(), btl.curvature.low_rank(2)])
def test_no_output_is_more_uncertain_without_its_group_than_under_the_prior(structure: Any):
    """Curvatures that see a part of what the data say, under a wide prior: an example's output moves by at most the
    prior's variance of it times the residual."""
    rng = np.random.default_rng(3)
    inputs, targets, scale = rng.normal(size=(4, 3)), rng.normal(size=(4, 2)), 30.0
    net = linear_net(3, 2)
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), scale)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
    design = np.hstack([inputs, np.ones((4, 1))])
    mode = np.linalg.solve(design.T @ design + np.eye(4) / scale**2, design.T @ targets)
    fitted = btl.tune.Fitted({"w": jnp.asarray(mode[:3]), "b": jnp.asarray(mode[3])}, None)
    batch = btl.Batch(jnp.asarray(inputs), jnp.asarray(targets))
    scores = btl.tune.leave_out(np.arange(4), curvature=structure)(jax.random.key(0), joint, fitted, batch)
    residual = np.linalg.norm(targets - design @ mode, axis=1)
    most = (1 + scale**2 * np.sum(design**2, axis=1)) * residual
    assert np.all(scores >= -np.log(2 * np.pi) - 0.5 * most**2 - 1e-6)
    assert np.all(scores <= -np.log(2 * np.pi) - 0.5 * residual**2 + 1e-9)


@pytest.mark.x64
def test_a_group_of_all_examples_is_predicted_by_the_priors_mean():
    net, batch = linear_net(2, 3), btl.Batch(jnp.asarray(RNG.normal(size=(3, 2))), jnp.arange(3))
    mean = {"w": jnp.asarray(RNG.normal(size=(2, 3))), "b": jnp.zeros(3)}
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), btl.gaussians.isotropic(mean, 1.0), num_data=3)
    criterion = btl.tune.leave_out(btl.tune.groups_by_class(batch.targets))
    scores = criterion(jax.random.key(0), joint, btl.tune.Fitted(net.params, None), batch)
    expected = scipy.special.log_softmax(np.asarray(batch.inputs) @ np.asarray(mean["w"]), axis=1).diagonal()
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


@pytest.mark.x64
def test_sure_predictions_keep_their_digits():
    """Probabilities of 1e-13 have roots of Hessians with singular values of 3e-7, which are not those that are 0. A
    root holds 1 - p, of which float64 keeps five digits here."""
    outputs = jnp.array([[30.0, 0.0, 1.0], [0.0, 29.0, 0.0]])
    space = btl.tune.output_space(btl.likelihoods.categorical(), outputs, jnp.array([1, 1]))
    p = scipy.special.softmax(np.asarray(outputs), axis=1)
    expected = (p - np.eye(3)[[1, 1]]) / np.sqrt(p)
    np.testing.assert_allclose(space.residuals, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", [[0, 2], [0.0, 1.0], [-1, -1], [[0, 1]]])
def test_groups_that_are_none_are_refused(groups: list):
    with pytest.raises(ValueError, match="one whole number per example"):
        btl.tune.leave_out(groups)
