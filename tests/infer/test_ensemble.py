"""Ensembles: randomised ones are draws from exact posteriors, plain ones the members' own answers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import optax
import pytest

import bayestl as btl

SIZE, NUM = 6, 30


def _rows(draws):
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(draws)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


def _sees_targets_alone(key, batch):
    assert batch.targets.shape == (NUM,)
    return batch


@pytest.mark.x64
@pytest.mark.parametrize(
    ("name", "randomize"),
    [
        *((structure.name, btl.infer.random_anchors_and_targets) for structure in lg.STRUCTURES),
        ("blocks", btl.infer.random_anchors),
    ],
    ids=[*(f"anchors and targets, {structure.name}" for structure in lg.STRUCTURES), "anchors"],
)
def test_randomised_members_have_their_exact_law(name, randomize):
    structure, members, temperature = lg.BY_NAME[name], 500, 0.5
    problem = lg.draw(structure, SIZE, NUM, seed=0)
    # A data set of which half is here: every example counts twice.
    joint = lg.joint(structure, problem, num_data=2 * NUM, temperature=temperature)
    prior, gram = structure.covariance(problem.prior[1]), 2 * problem.inputs.T @ problem.inputs / problem.noise**2
    precision = gram + np.linalg.inv(prior)
    posterior = np.linalg.inv(precision)
    right = 2 * problem.inputs.T @ problem.targets / problem.noise**2 + np.linalg.solve(prior, problem.prior[0])
    mean, covariance = posterior @ right, temperature * posterior
    if randomize is btl.infer.random_anchors:
        # theta_m = mean + Lambda^-1 Sigma^-1 (a_m - mu): without noise on the targets their share of Lambda is missing.
        covariance = temperature * posterior @ np.linalg.inv(prior) @ posterior
    # Heavy ball at 1 / L forgets its start by sqrt(0.9) a step where rate x curvature > 0.0027.
    curvatures = np.linalg.eigvalsh(precision) / (2 * NUM)
    assert curvatures[0] / curvatures[-1] > 0.003
    optimizer = optax.sgd(float(1 / curvatures[-1]), momentum=0.9)
    starts = jax.vmap(lg.tree)(jnp.zeros((members, SIZE)))
    found: Any = btl.infer.ensemble(
        jax.random.key(0), joint, starts, lg.data(problem), lambda joint: btl.infer.map_estimate(joint, optimizer),
        steps=250, batch_size=NUM, randomize=randomize, transform=_sees_targets_alone, chunk_size=250, progress=False,
    )  # fmt: skip
    assert isinstance(found, btl.Samples)
    draws = _rows(found.draws)
    assert draws.shape == (members, SIZE)
    # Five standard errors: of a mean sqrt(C_ii / M), of a sample covariance sqrt((C_ij^2 + C_ii C_jj) / M).
    scale = np.diag(covariance)
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * np.sqrt(scale / members))
    error = np.sqrt((covariance**2 + np.outer(scale, scale)) / members)
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 5 * error)


def test_noise_on_the_targets_has_the_scale_of_each_output_and_none_without_data():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros((2, 3))})
    scale = jnp.array([0.1, 1.0, 10.0])
    joint = btl.LogJoint(net, btl.likelihoods.normal(scale), btl.gaussians.isotropic(net.params, 1.0), num_data=50)
    batch = btl.Batch(jnp.ones((50_000, 2)), jnp.zeros((50_000, 3)))
    noise = btl.infer.random_anchors_and_targets(jax.random.key(0), joint.replace(num_data=jnp.float32(50_000)), batch)
    # A standard deviation from n draws has relative error 1 / sqrt(2 n).
    np.testing.assert_allclose(noise.noise.std(0), scale, rtol=5 / np.sqrt(2 * 50_000))
    blind = btl.infer.random_anchors_and_targets(jax.random.key(0), joint.replace(kappa=jnp.float32(0)), batch)
    assert not np.any(blind.noise)


def _setup(num_members):
    structure = lg.BY_NAME["isotropic"]
    problem = lg.draw(structure, SIZE, NUM, seed=1)
    starts = jax.vmap(lg.tree)(jax.random.normal(jax.random.key(5), (num_members, SIZE)))
    return problem, lg.joint(structure, problem), starts


def test_members_of_a_plain_ensemble_agree_on_a_convex_problem_and_compile_once():
    problem, joint, starts = _setup(3)
    made = []

    def method(joint):
        made.append(joint)
        return btl.infer.map_estimate(joint, optax.sgd(float(0.5 / problem.largest_curvature), momentum=0.9))

    run = {"steps": 300, "batch_size": NUM, "chunk_size": 20, "progress": False}
    data = lg.data(problem)
    posterior: Any = btl.infer.ensemble(jax.random.key(0), joint, starts, data, method, **run)
    np.testing.assert_array_equal(posterior.log_weights, np.zeros(3))
    # float32 sums over 30 examples, divided by curvatures that differ by up to a hundred.
    np.testing.assert_allclose(_rows(posterior.draws), np.tile(problem.mean, (3, 1)), atol=1e-3)
    traced = len(made)
    few: Any = btl.infer.ensemble(jax.random.key(1), joint, starts, data, method, **{**run, "steps": 20})
    apart = _rows(few.draws)
    assert np.abs(apart[0] - apart[1]).max() > 0.01, "members start apart"
    assert len(made) == traced + 1 < 2 * traced, "made once more to be checked, not to be compiled"


def test_members_with_gaussians_make_a_mixture():
    problem, joint, starts = _setup(2)
    data, optimizer = lg.data(problem), optax.sgd(0.1)

    def swag(joint):
        return btl.infer.swag(joint, optimizer, rank=2, start=2, every=1, eps=1e-4)

    def multi_swag(steps):
        run = {"steps": steps, "batch_size": 4, "chunk_size": 3, "progress": False}
        return btl.infer.ensemble(jax.random.key(0), joint, starts, data, swag, **run)

    posterior: Any = multi_swag(9)
    assert isinstance(posterior, btl.Mixture)
    assert [type(c) for c in posterior.components] == [btl.gaussians.LowRank] * 2
    draws = _rows(posterior.sample(jax.random.key(1), 20))
    assert draws.shape == (20, SIZE)
    components: Any = posterior.components
    widths = [np.sqrt(lg.flat(c.variance).max()) for c in components]
    distances = [np.abs(draws - lg.flat(c.mean)).max(1) / w for c, w in zip(components, widths, strict=True)]
    assert np.all(np.min(distances, axis=0) < 6)
    with pytest.raises(ValueError, match=r"posterior of the members at .* \(swag: two iterates\)"):
        multi_swag(3)


def _failing(params, state, inputs, key):
    """NaN for members whose parameters are negative; running statistics that differ between members."""
    outputs = jnp.where(jnp.min(params["w"]) < 0, jnp.nan, inputs @ params["w"])
    return outputs, state if key is None else {"mean": state["mean"] + jnp.mean(outputs)}


def test_failed_members_are_left_out_and_statistics_of_ones_own_are_said():
    net = btl.Net({"w": jnp.ones(2)}, {"mean": jnp.zeros(())}, _failing)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=4)
    data = btl.data.arrays(jnp.ones((4, 2)), jnp.full(4, 10.0))
    starts = {"w": jnp.array([[1.0, 1.0], [-1.0, 1.0], [2.0, 1.0]])}

    def run(starts):
        method = lambda joint: btl.infer.map_estimate(joint, optax.sgd(0.01))  # noqa: E731
        return btl.infer.ensemble(jax.random.key(0), joint, starts, data, method, steps=3, progress=False)

    with pytest.warns(RuntimeWarning) as said:
        posterior: Any = run(starts)
    words = [str(w.message) for w in said]
    assert any("1 of 3 members failed and are left out of the ensemble" in w for w in words)
    assert any("running statistics of their own" in w for w in words)
    assert posterior.draws["w"].shape == (2, 2)
    assert np.all(posterior.draws["w"] > 0)
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="all 2 members became non-finite"):
        run({"w": -jnp.ones((2, 2))})


def test_bad_input():
    problem, joint, starts = _setup(2)
    data = lg.data(problem)

    def run(joint=joint, starts=starts, data=data, randomize: Any = None):
        method = lambda joint: btl.infer.map_estimate(joint, optax.sgd(0.01))  # noqa: E731
        return btl.infer.ensemble(
            jax.random.key(0), joint, starts, data, method, steps=1, randomize=randomize, progress=False
        )

    with pytest.raises(ValueError, match=r"starts need one leading axis M on every leaf, .* are \[1, 2\]"):
        run(starts={"a": jnp.ones((2, 3)), "b": jnp.ones((1, 3))})
    with pytest.raises(TypeError, match="random anchors are drawn from a Gaussian prior, and this one is NoneType"):
        run(joint=joint.replace(prior=None), randomize=btl.infer.random_anchors)
    noise = btl.infer.random_anchors_and_targets
    for likelihood in (btl.likelihoods.categorical(), btl.likelihoods.normal()):
        with pytest.raises(
            TypeError, match=r"noise on the targets needs .* likelihoods.normal\(scale\), .* random_anchors"
        ):
            run(joint=joint.replace(likelihood=likelihood), randomize=noise)
    examples = data.resident()
    with pytest.raises(TypeError, match=r"data is a Batch; noise on the targets needs btl.data.arrays"):
        run(data=examples, randomize=noise)
    rows = list(zip(np.asarray(examples.inputs), np.asarray(examples.targets), strict=True))
    with pytest.raises(TypeError, match=r"data is a StreamData, which does not hold its examples"):
        run(data=btl.data.stream(rows, lambda row: row), randomize=noise)
