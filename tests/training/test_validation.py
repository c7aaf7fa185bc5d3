"""The validation score of a run, and runs of whole epochs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl

NUM, HELD_OUT, WIDTH, BATCH, SCALE = 10, 7, 3, 4, 0.5
RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(NUM, WIDTH)).astype("f"), RNG.normal(size=NUM).astype("f")
OTHER_INPUTS, OTHER_TARGETS = RNG.normal(size=(HELD_OUT, WIDTH)).astype("f"), RNG.normal(size=HELD_OUT).astype("f")
NET = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(WIDTH)})
PRIOR = btl.gaussians.isotropic(NET.params, scale=1.0)
JOINT = btl.LogJoint(NET, btl.likelihoods.normal(SCALE), PRIOR, num_data=NUM)
MAP = btl.infer.map_estimate(JOINT, optax.sgd(0.01))
DATA, OTHER = btl.data.arrays(INPUTS, TARGETS), btl.data.arrays(OTHER_INPUTS, OTHER_TARGETS)
WEIGHTS = np.array([1, 0, 2, 1, 0.5, 1, 3], np.float32)


def _fit(method: btl.Inference = MAP, key: int = 0, **changes: Any) -> btl.FitResult:
    settings = {"batch_size": BATCH, "chunk_size": 4, "progress": False, **changes}
    if "epochs" not in settings:
        settings.setdefault("steps", 10)
    return btl.fit(jax.random.key(key), method, NET.params, settings.pop("data", DATA), **settings)


def _by_hand(w: Any, weights: np.ndarray | None = None) -> float:
    """The mean of -log N(y; x w, SCALE^2) in float64."""
    errors = OTHER_TARGETS.astype(np.float64) - OTHER_INPUTS.astype(np.float64) @ np.asarray(w, np.float64)
    each = 0.5 * (errors / SCALE) ** 2 + np.log(SCALE) + 0.5 * np.log(2 * np.pi)
    return float(np.average(each, weights=weights))


def _equal(x: Any, y: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), x, y))


class _Weights:
    """A callback that notes the point at the end of every chunk."""

    def __init__(self) -> None:
        self.at: dict[int, np.ndarray] = {}

    def __call__(self, event: btl.Progress) -> None:
        state = event.state
        self.at[event.step] = np.asarray((state.params if hasattr(state, "params") else state.mean)["w"])


@pytest.mark.parametrize(
    "method",
    [
        MAP,
        btl.infer.mean_field_vi(JOINT, optax.sgd(0.01)),
        btl.infer.ivon(JOINT, 0.01),
        btl.infer.sgld(JOINT, 1e-4, num_samples=2),
    ],
    ids=["map", "mean_field_vi", "ivon", "sgld"],
)
def test_score_is_that_of_the_point_at_its_step(method):
    weights = _Weights()
    result = _fit(method, validate=OTHER, every=3, callbacks=[weights])
    score = result.history["validation_nll"]
    assert score.shape == (10,)
    assert (np.flatnonzero(~np.isnan(score)) + 1).tolist() == [3, 6, 9]
    # float32: 7 examples, each a sum of a few terms below 20, relative error some 10 eps = 1e-6.
    np.testing.assert_allclose(score[[2, 5, 8]], [_by_hand(weights.at[step]) for step in (3, 6, 9)], rtol=1e-5)
    assert len(np.unique(score[[2, 5, 8]])) == 3, "every score is of another point"


def test_a_batch_counts_by_its_weights():
    weights = _Weights()
    batch = btl.Batch(jnp.asarray(OTHER_INPUTS), jnp.asarray(OTHER_TARGETS), jnp.asarray(WEIGHTS))
    score = _fit(validate=batch, every=5, callbacks=[weights]).history["validation_nll"]
    np.testing.assert_allclose(score[[4, 9]], [_by_hand(weights.at[step], WEIGHTS) for step in (5, 10)], rtol=1e-5)


def test_data_that_are_read_score_as_data_that_are_held():
    class Examples:
        def __len__(self):
            return HELD_OUT

        def __getitem__(self, i):
            return OTHER_INPUTS[i], OTHER_TARGETS[i]

    read = btl.data.stream(Examples(), lambda example: example)
    assert _equal(_fit(validate=read, every=5).history, _fit(validate=OTHER, every=5).history)


def test_scores_change_nothing_else_and_do_not_depend_on_chunks():
    plain, scored = _fit(), _fit(validate=OTHER, every=3)
    assert _equal(plain.state, scored.state)
    assert _equal(plain.history, {name: x for name, x in scored.history.items() if name != "validation_nll"})
    for chunk_size in (1, 3, 1000):
        assert _equal(scored.history, _fit(validate=OTHER, every=3, chunk_size=chunk_size).history)


def test_the_state_of_the_network_is_that_of_the_step():
    """A network whose state counts its training passes, and adds the count to its outputs where it predicts."""

    def apply(params, state, inputs, key):
        return (inputs @ params["w"] + state, state) if key is None else (inputs @ params["w"], state + 1)

    net = btl.Net(NET.params, jnp.zeros(()), apply)
    method = btl.infer.map_estimate(
        btl.LogJoint(net, btl.likelihoods.normal(SCALE), PRIOR, num_data=NUM), optax.sgd(0.0)
    )
    score = _fit(method, validate=OTHER, every=2).history["validation_nll"]
    truth = [np.mean((OTHER_TARGETS - step) ** 2) / (2 * SCALE**2) for step in (2, 4, 6, 8, 10)]
    np.testing.assert_allclose(score[1::2], np.array(truth) + np.log(SCALE) + 0.5 * np.log(2 * np.pi), rtol=1e-5)


def test_interrupted_and_failed_runs_keep_their_scores():
    whole = _fit(validate=OTHER, every=3).history["validation_nll"]

    def interrupt(event):
        if event.step == 6:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted"):
        result = _fit(validate=OTHER, every=3, callbacks=[interrupt])
    assert result.steps == 6
    assert _equal(result.history["validation_nll"], whole[:6])

    # Errors grow more than a thousandfold at every step, and their squares overflow beyond 1e38.
    with pytest.warns(RuntimeWarning, match="the run stops"):
        failed = _fit(btl.infer.map_estimate(JOINT, optax.sgd(1e4)), validate=OTHER, every=1, chunk_size=10)
    assert 2 <= failed.steps < 10
    assert not np.isnan(failed.history["validation_nll"]).any()
    assert len(failed.history["validation_nll"]) == failed.steps


@pytest.mark.parametrize("stop", [4, 6, 7])
def test_a_run_that_goes_on_has_the_same_bits(tmp_path, stop):
    checkpoint = btl.Checkpoint(tmp_path / "run", every=1)
    settings: dict[str, Any] = {"validate": OTHER, "every": 3}
    first = _fit(steps=stop, checkpoint=checkpoint, **settings)
    assert len(first.history["validation_nll"]) == stop
    rest = _fit(steps=10, checkpoint=checkpoint, **settings)
    whole = _fit(steps=10, **settings)
    assert _equal(rest.state, whole.state)
    assert _equal(rest.history, whole.history)


def test_epochs_are_so_many_steps():
    """10 examples in batches of 4 are epochs of 3 steps, and by default every one of them is scored."""
    by_epochs, by_steps = _fit(epochs=3, validate=OTHER), _fit(steps=9, validate=OTHER, every=3)
    assert by_epochs.steps == 9
    assert _equal(by_epochs.state, by_steps.state)
    assert _equal(by_epochs.history, by_steps.history)
    many = btl.fit_many(
        jax.random.key(0)[None], lambda rate: btl.infer.map_estimate(JOINT, optax.sgd(rate)), jnp.array([0.01]),
        NET.params, DATA, epochs=3, batch_size=BATCH, progress=False,
    )  # fmt: skip
    assert many.steps == 9


WIDE = btl.data.arrays(np.ones((5, WIDTH + 1), np.float32), np.ones(5, np.float32))
INTEGERS = btl.data.arrays(np.ones((5, WIDTH), np.uint8), np.ones(5, np.float32))
NO_SCORE = MAP._replace(log_likelihoods=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 2, "epochs": 1}, "steps is 2 and epochs is 1; give exactly one of them"),
        ({"steps": None}, "steps is None and epochs is None; give exactly one of them"),
        ({"epochs": 0}, "epochs is 0; give a whole number of passes over the data, at least 1"),
        ({"epochs": 1.5}, "epochs is 1.5; give a whole number of passes"),
        ({"every": 2}, "every is 2, but there are no data to validate on; give validate"),
        ({"validate": OTHER, "every": 0}, "every is 0; give a whole number of steps between validations, at least 1"),
        ({"validate": OTHER, "every": 2.5}, "every is 2.5; give a whole number of steps"),
        ({"validate": OTHER, "every": 11}, "every is 11, but the run has 10 steps and would never be scored"),
        ({"validate": OTHER, "steps": 2}, "every is an epoch of 3 steps by default, but the run has 2 steps"),
        ({"validate": WIDE}, r"validate does not fit the method; its inputs are \(4,\) per example, and \(3,\) in"),
        ({"validate": INTEGERS}, "validate has inputs of uint8 at '', where training sees float32; transform is not"),
        ({"validate": OTHER, "method": NO_SCORE}, "validate needs a method that gives Inference.log_likelihoods"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        _fit(**changes)


def test_data_that_cannot_be_passed_over():
    with pytest.raises(TypeError, match="data is a list"):
        _fit(validate=[1, 2])
