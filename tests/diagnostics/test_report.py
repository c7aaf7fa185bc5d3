"""The report: right numbers for posteriors that are known, and words for those that should not be trusted."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import bayestl as btl
from bayestl.diagnostics import report

NUM = 12


def _case() -> tuple[btl.LogJoint, Any, Any]:
    """A linear-Gaussian problem, and its posterior."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(NUM, 2)), rng.normal(size=NUM)
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
    prior = btl.gaussians.isotropic(net.params, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=NUM)
    covariance = np.linalg.inv(inputs.T @ inputs + np.eye(2))
    exact = btl.gaussians.dense({"w": jnp.asarray(covariance @ inputs.T @ targets)}, jnp.asarray(covariance))
    return joint, btl.data.arrays(inputs, targets), exact


def _report(joint: Any, posterior: Any, data: Any, **changes: Any) -> btl.diagnostics.Report:
    return report(jax.random.key(0), joint, posterior, data, **changes)


def test_the_posterior_itself_is_trusted():
    joint, data, exact = _case()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _report(joint, exact, data, batch_size=5)
    assert found["k-hat"] == -np.inf
    covariance = np.asarray(exact.covariance())
    np.testing.assert_allclose(
        found["smallest eigenvalue of precision"], 1 / np.linalg.eigvalsh(covariance)[-1], rtol=1e-3
    )
    np.testing.assert_allclose(found["variance over the prior's, w"], np.diag(covariance).mean(), rtol=1e-4)
    assert str(found).splitlines()[0] == "Dense"
    assert len(str(found).splitlines()) == 4


def test_a_narrow_approximation_is_not_trusted():
    joint, data, exact = _case()
    with pytest.warns(UserWarning, match=r"should not be trusted .* k-hat is .* differ too much"):
        found = _report(joint, exact.rescale(0.1), data)
    assert found["k-hat"] > 0.7
    assert "<-" in str(found)
    assert "Not to be trusted as it is: k-hat is" in str(found)
    with pytest.warns(UserWarning, match="it hardly varies at all"):
        found = _report(joint, exact.rescale(1e-6), data)


def test_a_point_has_no_uncertainty():
    joint, data, _ = _case()
    with pytest.warns(UserWarning, match="it is one set of parameters"):
        _report(joint, btl.Point({"w": jnp.zeros(2)}), data)


def test_chains_that_mixed():
    joint, data, exact = _case()
    keys = jax.random.split(jax.random.key(1), 4)
    sampler = {"num_samples": 500, "every": 10, "start": 100}
    many = btl.fit_many(
        keys, lambda eps: btl.infer.sgld(joint, eps, **sampler), jnp.full(4, 0.02), {"w": jnp.zeros(2)}, data,
        steps=5100, batch_size=NUM, progress=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _report(joint, many.posterior, data, history=many.history)
    assert found["draws"] == 2000
    assert found["R-hat of predictions, largest"] < 1.01
    assert 400 < found["effective draws, bulk, fewest"] < 2500
    assert 400 < found["effective draws, tails, fewest"] < 2500
    np.testing.assert_allclose(found["temperature, last half of the run"], 1 + found["step-to-noise ratio, last half"])
    # T_eff of the stationary law, tr(H S) / D = mean of 1 / (1 - eps h / 4).
    h = 1 / np.linalg.eigvalsh(np.asarray(exact.covariance()))
    known = np.mean(1 / (1 - 0.02 * h / 4))
    np.testing.assert_allclose(found["temperature, last half of the run"], known, rtol=0.02)


def test_chains_that_did_not_mix():
    joint, data, _ = _case()
    rng = np.random.default_rng(0)
    draws = {"w": jnp.asarray(rng.normal(size=(3, 60, 2)) + 3 * np.arange(3)[:, None, None])}
    apart = btl.posteriors.Chain(draws, jnp.zeros((3, 60)), {"w": jnp.zeros((3, 2))})
    with pytest.warns(UserWarning, match="should not be trusted") as caught:
        _report(joint, apart, data)
    words = [str(warning.message) for warning in caught]
    assert any("R-hat is" in text and "disagree" in text for text in words)
    assert any("independent draws, fewer than 300" in text for text in words)
    stuck = btl.posteriors.Chain({"w": jnp.ones((60, 2))}, jnp.zeros(60), {"w": jnp.ones(2)})
    with pytest.warns(UserWarning, match="every draw predicts the same: there is no variability at all"):
        _report(joint, stuck, data)
    broken = btl.posteriors.Chain({"w": draws["w"].at[0, 3].set(jnp.nan)}, jnp.zeros((3, 60)), {"w": jnp.zeros((3, 2))})
    with pytest.warns(UserWarning, match="1 of its 180 draws predict NaN or infinity"):
        _report(joint, broken, data)
    short = btl.posteriors.Chain({"w": jnp.ones((3, 2))}, jnp.zeros(3), {"w": jnp.ones(2)})
    with pytest.warns(UserWarning, match="its chains hold 3 draws, too few to see"):
        _report(joint, short, data)
    none = btl.posteriors.Chain({"w": jnp.full((3, 2), jnp.nan)}, jnp.full(3, -jnp.inf), {"w": jnp.ones(2)})
    with pytest.warns(UserWarning, match="it holds 0 draws"):
        _report(joint, none, data)


def _one_weight(draws: np.ndarray) -> tuple[btl.LogJoint, Any, btl.posteriors.Chain]:
    """A network of one weight, whose every prediction is that weight, and chains (C, n) of it."""
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), btl.gaussians.isotropic(net.params, 1.0), num_data=3)
    chains = btl.posteriors.Chain({"w": jnp.asarray(draws)[..., None]}, jnp.zeros(draws.shape), {"w": jnp.zeros(1)})
    return joint, btl.data.arrays(jnp.ones((3, 1)), jnp.zeros(3)), chains


def _split_r_hat_of_ranks(draws: np.ndarray) -> float:
    """Of the paper's equations 3, 4 and 14, in float64 and by scipy's ranks."""
    halves = np.concatenate(np.split(draws, 2, axis=1))
    scores = scipy.stats.norm.ppf((scipy.stats.rankdata(halves).reshape(halves.shape) - 3 / 8) / (halves.size + 1 / 4))
    within, num = scores.var(axis=1, ddof=1).mean(), halves.shape[1]
    between = num * scores.mean(axis=1).var(ddof=1)
    return float(np.sqrt(((num - 1) / num * within + between / num) / within))


def test_pooling_chains_loses_no_r_hat():
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(4, 50)).astype(np.float32)
    draws[3] = 6.0 + 0.1 * draws[3]  # one chain has stayed elsewhere
    joint, data, chains = _one_weight(draws)
    chains = dataclasses.replace(chains, params={"w": jnp.zeros((4, 1))})
    expected = _split_r_hat_of_ranks(draws.astype(np.float64))
    assert expected > 1.5
    for posterior in (chains, btl.posteriors.pooled(chains)):
        with pytest.warns(UserWarning, match="R-hat is .* disagree"):
            found = _report(joint, posterior, data)
        np.testing.assert_allclose(found["R-hat of predictions, largest"], expected, rtol=1e-5)


def test_a_number_that_is_none_is_below_no_limit():
    joint, data, chains = _one_weight(np.repeat([[0.0], [0.0], [1.0], [1.0]], 8, axis=1))
    for noisy in (np.zeros(10), np.ones(10)):  # no step with noise; a temperature that is not finite
        history = {"temperature": np.full(10, np.nan), "noisy": noisy}
        with pytest.warns(UserWarning, match="its temperature was nan in the last half of the run"):
            found = _report(joint, chains, data, history=history)
        assert found["R-hat of predictions, largest"] == np.inf
    narrow = btl.gaussians.isotropic({"w": jnp.zeros(1)}, 0.5)
    with pytest.warns(UserWarning, match="its k-hat is unknown: 10 draws are too few"):
        _report(joint, narrow, data, num_samples=10)


def test_a_hot_sampler_is_not_trusted_and_exploring_does_not_count():
    joint, data, exact = _case()
    noisy = np.tile([0.0, 1.0], 50)
    hot = {"temperature": np.where(noisy > 0, 1.6, 0.1), "step_to_noise": np.full(100, 0.6), "noisy": noisy}
    with pytest.warns(UserWarning, match=r"temperature was 1\.6 instead of 1, which makes it too wide; take smaller"):
        _report(joint, exact, data, history=hot)
    right = {**hot, "temperature": np.where(noisy > 0, 1.0, 0.1)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _report(joint, exact, data, history=right)


def test_members_of_an_ensemble_are_no_chain_and_a_flat_prior_has_no_spread():
    joint, data, exact = _case()
    members = btl.Samples(exact.sample(jax.random.key(0), 5), jnp.zeros(5))
    found = _report(joint, members, data)
    assert [row.name for row in found.rows] == ["draws", "variance over the prior's, w"]
    assert [row.name for row in _report(joint.replace(prior=None), members, data).rows] == ["draws"]


def test_classification_through_a_network():
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(30, 2)), rng.integers(0, 3, size=30)
    params = {"a": jnp.asarray(rng.normal(size=(2, 4))), "b": jnp.asarray(rng.normal(size=(4, 3)))}
    net = btl.nets.from_function(lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], params)
    prior = btl.gaussians.isotropic(jax.tree.map(jnp.zeros_like, params), 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=30)
    data = btl.data.arrays(inputs, labels)
    sampler = btl.infer.sghmc(joint, 5e-3, num_samples=100, every=5, start=100)
    fitted = btl.fit(jax.random.key(0), sampler, params, data, steps=600, batch_size=10, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _report(joint, fitted.posterior, data, history=fitted.history)
    assert np.isfinite(found["R-hat of predictions, largest"])
    assert 0.8 < found["temperature, last half of the run"] < 1.5
    assert 0.1 < found["variance over the prior's, a"] < 5


def _transfer() -> tuple[btl.LogJoint, Any, Any]:
    """A linear-Gaussian problem of six parameters in two leaves, under a prior that correlates them; its data in
    memory, and as a stream."""
    rng = np.random.default_rng(3)
    inputs, targets = rng.normal(size=(NUM, 6)).astype(np.float32), rng.normal(size=NUM).astype(np.float32)
    params = {"body": jnp.zeros(4), "head": jnp.zeros(2)}
    net = btl.nets.from_function(lambda p, x: x @ jnp.concatenate([p["body"], p["head"]]), params)
    root = rng.normal(size=(6, 6))
    prior = btl.gaussians.dense(params, jnp.asarray(root @ root.T / 6 + 0.1 * np.eye(6)))
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=NUM)
    records = [*zip(inputs, targets, strict=True)]
    return joint, btl.data.arrays(inputs, targets), btl.data.stream(records, lambda record: record)


@pytest.mark.representative("streamed")
@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "streamed"])
def test_a_posterior_of_a_part_is_held_against_that_part(streamed):
    joint, placed, stream = _transfer()
    data = stream if streamed else placed
    # With the body held at these values, the head's posterior mean is the mode of the head given them.
    fixed = {"body": jnp.linspace(-0.5, 0.5, 4), "head": jnp.zeros(2)}
    given = btl.infer.condition(joint, fixed, "head")
    batch = btl.Batch(placed.inputs, placed.targets)
    gradient, hessian = jax.grad(given.joint)(given.params, batch), jax.hessian(given.joint)(given.params, batch)
    precision = -np.asarray(hessian["head"]["head"], np.float64)
    mode = {**fixed, "head": jnp.asarray(np.linalg.solve(precision, gradient["head"]))}
    posterior = btl.infer.laplace(jax.random.key(0), joint, mode, data, selection="head")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _report(joint, posterior, data, kind=btl.curvature.ggn)
    names = [row.name for row in found.rows]
    assert names == [
        "k-hat",
        "smallest eigenvalue of precision",
        "largest curvature left out",
        "variance over the prior's, head",
    ]
    assert str(found).startswith("Part")
    assert found["k-hat"] < 0.5
    np.testing.assert_allclose(found[names[1]], np.linalg.eigvalsh(precision)[0], rtol=1e-3)
    assert found[names[2]] < 1e-3
    # The prior that counts is the one of the head given the body.
    before = np.diag(np.asarray(given.joint.prior.covariance()))
    np.testing.assert_allclose(found[names[3]], np.mean(np.diag(np.linalg.inv(precision)) / before), rtol=1e-4)
    narrow = btl.posteriors.Part(posterior.part.rescale(0.05), posterior.rest)
    with pytest.warns(UserWarning, match="k-hat is"):
        _report(joint, narrow, data)


def test_a_streamed_data_set_gives_the_same_report():
    joint, placed, stream = _transfer()
    posterior = btl.infer.laplace(jax.random.key(0), joint, {"body": jnp.ones(4), "head": jnp.ones(2)}, placed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reports = [_report(joint, posterior, data, kind=btl.curvature.ggn, batch_size=5) for data in (placed, stream)]
    for here, there in zip(*(found.rows for found in reports), strict=True):
        assert here.name == there.name
        np.testing.assert_allclose(here.value, there.value, rtol=1e-4, atol=1e-4)


def test_curvature_that_was_left_out_is_named():
    joint, data, _ = _transfer()
    joint = joint.replace(prior=btl.gaussians.isotropic(joint.prior.mean, 1.0))
    # Two directions say much, four say little.
    weights = np.diag([30.0, 20.0, 0.1, 0.1, 0.1, 0.1])
    data = btl.data.arrays(np.linalg.qr(np.asarray(data.inputs))[0] @ weights, np.zeros(NUM))
    mode, key = joint.prior.mean, jax.random.key(0)

    def found(rank):
        structure = btl.curvature.low_rank(rank)
        posterior = btl.infer.laplace(key, joint, mode, data, curvature=structure)
        return _report(joint, posterior, data, kind=btl.curvature.ggn)

    with pytest.warns(UserWarning, match=r"misses a direction in which data and prior have 401 times its precision"):
        assert abs(found(1)["largest curvature left out"] - 400) < 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(found(2)["largest curvature left out"], 0.01, rtol=0.01)
