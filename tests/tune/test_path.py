"""Paths over the scales of priors against closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import bayestl as btl
from bayestl.tune._path_run import _Order

RNG = np.random.default_rng(1)
INPUTS, TARGETS, NOISE = RNG.normal(size=(8, 3)), RNG.normal(size=8), 0.5
NET = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(3)})
JOINT = btl.LogJoint(NET, btl.likelihoods.normal(NOISE), None, num_data=8)
BATCH = btl.Batch(jnp.asarray(INPUTS, jnp.float32), jnp.asarray(TARGETS, jnp.float32))
MEANS = {"zero": np.zeros(3), "source": np.array([1.0, -1.0, 0.5])}
FAMILIES = [btl.tune.isotropic_family(name, {"w": jnp.asarray(m, jnp.float32)}) for name, m in MEANS.items()]
SCALES = np.array([-4.0, -1.0, 1.0])


def ridge(mean: np.ndarray, log_scale: float, rows: np.ndarray) -> np.ndarray:
    x, residual = INPUTS[rows], TARGETS[rows] - INPUTS[rows] @ mean
    return mean + np.linalg.solve(x.T @ x + np.eye(3) * NOISE**2 / np.exp(log_scale), x.T @ residual)


def by_convolution(params: dict, x: jax.Array) -> jax.Array:
    """The same linear network; on CPUs its steps are dispatched one by one."""
    return jax.lax.conv_general_dilated(x[:, None], params["w"][None, None], (1,), "VALID")[:, 0, 0]


@pytest.mark.parametrize("net", [NET, btl.nets.from_function(by_convolution, NET.params)], ids=["", "convolutional"])
def test_modes_and_folds_are_those_of_ridge_regression(net: btl.Net):
    groups = np.array([0, 1, 2, 0, 1, 2, 0, -1])
    joint, criterion = btl.LogJoint(net, btl.likelihoods.normal(NOISE), None, num_data=8), btl.tune.k_fold(groups)
    path = btl.tune.path(jax.random.key(0), joint, FAMILIES, BATCH, SCALES, criterion, steps=300)
    assert path.steps == 2 * 3 * 300 * 4  # two families, three scales, all data and three folds
    for family, mean in enumerate(MEANS.values()):
        for number, log_scale in enumerate(SCALES):
            whole = ridge(mean, log_scale, np.ones(8, bool))
            np.testing.assert_allclose(path.params[family][number]["w"], whole, atol=2e-4)
            expected = [
                scipy.stats.norm.logpdf(TARGETS[i], INPUTS[i] @ ridge(mean, log_scale, groups != groups[i]), NOISE)
                for i in range(7)
            ]
            np.testing.assert_allclose(path.scores[family, number], expected, atol=5e-3)
            outputs = [INPUTS[i] @ ridge(mean, log_scale, groups != groups[i]) for i in range(7)]
            np.testing.assert_allclose(path.left_out.outputs[family, number, :, 0], outputs, atol=2e-3)
    assert path.left_out.rows.tolist() == list(range(7))
    np.testing.assert_array_equal(path.left_out.log_probs, path.scores)


def test_steps_of_batches_end_at_the_modes_where_no_example_disagrees():
    """Targets without noise, and a wide prior: the mode is that of every batch."""
    exact = btl.Batch(BATCH.inputs, BATCH.inputs @ jnp.array([0.5, -1.0, 2.0]))
    groups = np.array([0, 0, -1, -1, -1, -1, -1, -1])
    path = btl.tune.path(
        jax.random.key(0), JOINT, FAMILIES, exact, [6.0, 8.0], btl.tune.k_fold(groups), steps=400, batch_size=4
    )
    for params in path.params[1]:
        np.testing.assert_allclose(params["w"], [0.5, -1.0, 2.0], atol=2e-3)
    # The two that are left out are predicted by the fit without them, which has found the same.
    np.testing.assert_allclose(path.scores[:, 1], scipy.stats.norm.logpdf(0, 0, NOISE), atol=1e-4)
    assert path.scores.shape == (2, 2, 2)
    assert path.unfinished == ()


def test_a_batch_of_all_examples_is_all_examples():
    one, other = (
        btl.tune.path(jax.random.key(0), JOINT, FAMILIES, BATCH, SCALES, btl.tune.k_fold([0, 1] * 4), batch_size=size)
        for size in (None, 8)
    )
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    with pytest.raises(ValueError, match="batch_size is 9; give 1 to 8"):
        btl.tune.path(jax.random.key(0), JOINT, FAMILIES, BATCH, SCALES, btl.tune.k_fold([0, 1] * 4), batch_size=9)


def test_each_epoch_sees_every_example_once_however_the_steps_are_cut():
    order = _Order(jax.random.key(3), num_examples=10, batch_size=4)
    rows = order.rows(0, 25)
    np.testing.assert_array_equal(np.sort(rows.reshape(-1, 10), 1), np.tile(np.arange(10), (10, 1)))
    np.testing.assert_array_equal(np.concatenate([order.rows(0, 7), order.rows(7, 18)]), rows)
    assert len(np.unique(rows.reshape(-1, 10), axis=0)) > 1


@pytest.mark.parametrize("is_learned", [False, True])
def test_an_interrupted_path_goes_on_to_the_same_bits(is_learned: bool, tmp_path: Path):
    def run(families: list = FAMILIES, stop_at: int | None = None, **more: Any) -> btl.tune.Path:
        lines = []

        def report(line: str) -> None:
            lines.append(line)
            if len(lines) == stop_at:
                raise KeyboardInterrupt

        criterion = btl.tune.linear_leave_one_out()
        learn = btl.tune.noise_by_evidence if is_learned else None
        settings = {"steps": 20, "learn": learn, "report": report, "batch_size": 8 if is_learned else 3, **more}
        return btl.tune.path(jax.random.key(0), JOINT, families, BATCH, SCALES, criterion, **settings)

    whole = run()
    folder = tmp_path / "path"
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=2, checkpoint=folder)
    files = sorted(folder.iterdir())
    assert len(files) == 2
    # A file cut short is as good as none.
    files[1].write_bytes(files[1].read_bytes()[:-10])
    with pytest.warns(RuntimeWarning, match=r"scale-001.*computed again"):
        again = run(checkpoint=folder)
    assert again.steps == whole.steps
    np.testing.assert_array_equal(again.scores, whole.scores)
    jax.tree.map(np.testing.assert_array_equal, again.left_out, whole.left_out)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, again.likelihoods, whole.likelihoods)
    with pytest.raises(ValueError, match="belongs to another call"):
        run(checkpoint=folder, steps=21)
    with pytest.raises(ValueError, match="belongs to another call"):
        run(families=FAMILIES[::-1], checkpoint=folder)


def test_other_data_and_the_evidence_score_the_same_modes():
    other = btl.Batch(BATCH.inputs[:2] + 1, BATCH.targets[:2])
    path = btl.tune.path(
        jax.random.key(0), JOINT, FAMILIES[1:], BATCH, SCALES[1:2], btl.tune.validation(other), steps=300
    )
    mode = ridge(MEANS["source"], -1.0, np.ones(8, bool))
    expected = scipy.stats.norm.logpdf(np.asarray(other.targets), np.asarray(other.inputs) @ mode, NOISE)
    np.testing.assert_allclose(path.scores[0, 0], expected, atol=2e-3)
    joint = JOINT.replace(prior=path.prior(0, 0))
    fitted = btl.tune.Fitted(jax.tree.map(jnp.asarray, path.params[0][0]), None)
    (value,) = btl.tune.evidence()(jax.random.key(0), joint, fitted, BATCH)
    covariance = np.exp(-1.0) * INPUTS @ INPUTS.T + NOISE**2 * np.eye(8)
    assert value == pytest.approx(
        scipy.stats.multivariate_normal.logpdf(TARGETS, INPUTS @ MEANS["source"], covariance), abs=1e-3
    )


def test_priors_of_other_structure_run_beside():
    """One variance per parameter instead of one per array: the same prior, in a program of its own."""
    mean = {"w": jnp.asarray(MEANS["source"], jnp.float32)}
    wide = btl.tune.Family("per parameter", btl.gaussians.diagonal(mean, {"w": jnp.ones(3)}))
    criterion = btl.tune.leave_out([0, 1, 2, 0, 1, 2, 0, 1])
    path = btl.tune.path(jax.random.key(0), JOINT, [FAMILIES[1], wide], BATCH, [-1.0], criterion, steps=100)
    np.testing.assert_allclose(path.scores[0], path.scores[1], atol=1e-4)


@pytest.mark.parametrize("scales", [[1.0, 0.0], [0.0, np.inf], np.zeros((3, 2))])
def test_scales_that_do_not_ascend_are_refused(scales: object):
    with pytest.raises(ValueError, match=r"log_scales|broadcast"):
        btl.tune.path(jax.random.key(0), JOINT, FAMILIES, BATCH, scales, btl.tune.leave_out([0] * 7 + [1]))


def test_groups_of_other_examples_are_refused():
    with pytest.raises(ValueError, match="3 group numbers and the data 8 examples"):
        btl.tune.path(jax.random.key(0), JOINT, FAMILIES, BATCH, SCALES, btl.tune.k_fold([0, 1, 1]))


def test_scales_are_those_of_the_outputs():
    """h is a normal log density in log v with deviation 2, and the grid is the same in v for every family."""
    variances, typical = np.array([3.0, 50.0]), 7.0
    scales = btl.tune.scales_around(variances, typical, 5)
    v = np.exp(scales) * variances[:, None]
    np.testing.assert_allclose(v[0], v[1])
    log_prior = btl.tune.scale_prior(scales, variances, typical)
    density = scipy.stats.norm.pdf(np.log(v / typical), 0, 2)
    np.testing.assert_allclose(np.exp(log_prior), density / density.sum(1, keepdims=True))
    with pytest.raises(ValueError, match="no parameter moves"):
        btl.tune.scales_around(np.array([0.0]), typical)
