"""Grids against ridge regressions in numpy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import bayestl as btl

RNG = np.random.default_rng(4)
NOISE, SCALES = 0.5, np.array([0.05, 0.3, 1.0, 20.0])
TRUTH = np.array([0.6, -0.4, 0.2])
INPUTS = RNG.normal(size=(2, 6, 3))
TARGETS = INPUTS @ TRUTH + NOISE * RNG.normal(size=(2, 6))
OTHER_INPUTS = RNG.normal(size=(20, 3))
OTHER_TARGETS = OTHER_INPUTS @ TRUTH + NOISE * RNG.normal(size=20)
NET = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(3)})
JOINT = btl.LogJoint(NET, btl.likelihoods.normal(NOISE), None, num_data=6)
VALIDATION = btl.Batch(jnp.asarray(OTHER_INPUTS, jnp.float32), jnp.asarray(OTHER_TARGETS, jnp.float32))
DATA = [btl.data.arrays(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)) for x, y in zip(INPUTS, TARGETS)]  # noqa: B905
STEPS = 200


def make(setting: Any) -> btl.Inference:
    prior = btl.gaussians.isotropic(NET.params, setting["scale"])
    return btl.infer.proximal_map(JOINT.replace(prior=prior), 0.02, momentum=0.9)


def score(posterior: Any, state: Any, run: int) -> jax.Array:
    return JOINT.log_likelihoods(posterior.params, VALIDATION)


def expected() -> np.ndarray:
    """Log predictive of the validation data after ridge regression: runs, settings, examples."""
    scores = []
    for x, y in zip(INPUTS, TARGETS, strict=True):
        modes = [np.linalg.solve(x.T @ x + np.eye(3) * NOISE**2 / scale**2, x.T @ y) for scale in SCALES]
        scores.append([scipy.stats.norm.logpdf(OTHER_TARGETS, OTHER_INPUTS @ w, NOISE) for w in modes])
    return np.array(scores)


def run(**options: Any) -> btl.tune.Grid:
    return btl.tune.grid(
        jax.random.split(jax.random.key(0), 2), make, {"scale": SCALES}, NET.params, btl.data.stack(DATA), score,
        steps=STEPS, data_axis=0, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> btl.tune.Grid:
    return run(read_at=[2, STEPS])


def test_scores_choice_and_errors_are_those_of_ridge_regressions(whole: btl.tune.Grid):
    means = expected().mean(-1)
    np.testing.assert_allclose(whole.scores[:, 1], means, atol=2e-3)
    np.testing.assert_allclose(whole.errors[1], means.std(0, ddof=1) / np.sqrt(2), atol=2e-3)
    best = int(np.argmax(means.mean(0)))
    assert whole.best() == (1, best)
    assert whole.setting() == {"scale": pytest.approx(SCALES[best]), "steps": STEPS}
    assert whole.best(run=1)[1] == int(np.argmax(means[1]))
    assert whole.steps == 2 * 4 * STEPS
    mode = whole.posterior(run=1)[0].params["w"]
    x, y = INPUTS[1], TARGETS[1]
    ridge = np.linalg.solve(x.T @ x + np.eye(3) * NOISE**2 / SCALES[best] ** 2, x.T @ y)
    np.testing.assert_allclose(mode, ridge, atol=1e-3)
    assert "more steps may be better" in whole.notes[-1]
    assert "Note: " in str(whole)


def test_halving_ends_where_the_whole_grid_does_for_less(whole: btl.tune.Grid):
    halved = run(halving=2)
    assert [(rung.budget, len(rung.settings)) for rung in halved.rungs] == [(50, 4), (100, 2), (200, 1)]
    assert halved.steps == 2 * (4 * 50 + 2 * 100 + 200)
    number = whole.best()[1]
    assert halved.best() == (0, number)
    np.testing.assert_allclose(halved.scores[:, 0, number], whole.scores[:, 1, number], atol=1e-6)
    assert np.isnan(np.delete(halved.curve[0], number)).all()


def test_one_run_has_errors_over_examples_and_says_which_limit_it_runs_to():
    """Scales that are all too narrow for a prior mean of zero: the widest is best."""
    result = btl.tune.grid(
        jax.random.split(jax.random.key(0), 1), make, [{"scale": 0.01}, {"scale": 0.1}], NET.params, DATA[0], score,
        steps=STEPS,
    )  # fmt: skip
    x, y = INPUTS[0], TARGETS[0]
    mode = np.linalg.solve(x.T @ x + np.eye(3) * NOISE**2 / 0.1**2, x.T @ y)
    each = scipy.stats.norm.logpdf(OTHER_TARGETS, OTHER_INPUTS @ mode, NOISE)
    assert result.errors[0, 1] == pytest.approx(each.std(ddof=1) / np.sqrt(20), abs=1e-3)
    (note,) = result.notes
    assert "scale is best at its largest value, 0.1: it runs to infinity" in note
    assert "±" in str(result)


def test_of_a_mean_alone_no_error_is_known():
    result = btl.tune.grid(
        jax.random.split(jax.random.key(0), 1), make, [{"scale": 0.1}], NET.params, DATA[0],
        lambda *given: jnp.mean(score(*given)), steps=STEPS,
    )  # fmt: skip
    assert np.isnan(result.errors).all()
    assert "±" not in str(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"halving": 0}, "halving is 0"),
        ({"read_at": [5, 3, STEPS]}, "read_at is"),
        ({"read_at": [5]}, "ascend to steps, 200"),
    ],
)
def test_what_is_no_grid_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_settings_of_different_lengths_are_refused():
    for settings in ({"scale": [1.0], "rate": [1.0, 2.0]}, [{"a": 1.0}, {"b": 1.0}], {"scale": 1.0}):
        with pytest.raises(ValueError, match="settings"):
            btl.tune.grid(jax.random.split(jax.random.key(0), 1), make, settings, NET.params, DATA[0], score, steps=1)


def test_products_are_all_combinations():
    values = btl.tune.product(a=[1.0, 2.0], b=[3.0, 4.0, 5.0])
    pairs = sorted(zip(values["a"].tolist(), values["b"].tolist(), strict=True))
    assert pairs == [(a, b) for a in (1.0, 2.0) for b in (3.0, 4.0, 5.0)]
    with pytest.raises(ValueError, match="a list of numbers"):
        btl.tune.product(a=[])
