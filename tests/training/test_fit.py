"""The loop: what it calls, when it stops, what it keeps. The method here is one whose every state is known."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl

NUM, BATCH = 10, 4


class WalkState(NamedTuple):
    params: Any
    count: Any
    unseen: Any


class WalkInfo(NamedTuple):
    objective: Any
    targets: Any
    noise: Any


def _init(key, params):
    return WalkState(params, jnp.int32(0), jnp.float32(0.0))


def _step(key, state, batch):
    """Adds 1; NaN in the objective where ``params`` starts above 100, in an unseen part of the state above 200."""
    count = state.count + 1
    objective = jnp.where(state.params["x"] == 105.0, jnp.nan, state.params["x"])
    unseen = jnp.where(state.params["x"] == 205.0, jnp.inf, state.unseen)
    noise = jax.random.normal(key)
    return WalkState({"x": state.params["x"] + 1}, count, unseen), WalkInfo(objective, batch.targets, noise)


def _posterior(state):
    return btl.Point(state.params)


WALK = btl.Inference(_init, _step, _posterior)
DATA = btl.data.arrays(np.arange(NUM, dtype=np.float32)[:, None], np.arange(NUM))


def _fit(start: float = 0.0, key: int = 0, **changes: Any) -> btl.FitResult:
    settings = {"steps": 10, "batch_size": BATCH, "chunk_size": 4, "progress": False, **changes}
    return btl.fit(jax.random.key(key), WALK, {"x": jnp.float32(start)}, DATA, **settings)


def _equal(x: Any, y: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, x, y)))


# ---------------------------------------------------------------- steps, history, data order


def test_takes_the_steps_and_keeps_their_history():
    result = _fit()
    assert (result.steps, result.stopped) == (10, "finished")
    assert result.params["x"] == 10
    assert result.state.count == 10
    assert list(result.history) == ["objective", "targets", "noise"]
    np.testing.assert_array_equal(result.history["objective"], np.arange(10.0))
    assert result.history["targets"].shape == (10, BATCH)
    assert len(set(result.history["noise"].tolist())) == 10, "every step has its own key"
    assert result.seconds > 0
    assert result.compile_seconds > 0
    assert result.net_state == ()


def test_order_of_the_data_is_that_of_the_key():
    seen = _fit(key=3).history["targets"]
    order = jax.random.split(jax.random.key(3), 3)[1]
    truth = jax.jit(jax.vmap(lambda step: DATA.batch(order, step, BATCH).targets))(jnp.arange(10))
    np.testing.assert_array_equal(seen, truth)
    assert not np.array_equal(seen, _fit(key=4).history["targets"])


@pytest.mark.parametrize("chunk_size", [1, 10, 1000])
def test_chunks_change_nothing(chunk_size):
    few, other = _fit(), _fit(chunk_size=chunk_size)
    assert _equal(few.state, other.state)
    assert _equal(few.history, other.history)


def test_batch_size_defaults_to_all_of_a_small_data_set():
    result = _fit(steps=1, batch_size=None)
    assert sorted(result.history["targets"][0].tolist()) == list(range(NUM))


def test_transform_has_a_key_of_its_own_and_depends_on_nothing_else():
    def transform(key, batch):
        return batch._replace(targets=batch.targets + jax.random.normal(key))

    plain, moved, again = _fit(), _fit(transform=transform, chunk_size=4), _fit(transform=transform, chunk_size=3)
    shift = moved.history["targets"] - plain.history["targets"]
    np.testing.assert_allclose(shift, shift[:, :1] * np.ones(BATCH), atol=1e-5)
    assert len(np.unique(shift[:, 0].round(3))) == 10, "every step draws anew"
    assert np.abs(shift[:, 0] - plain.history["noise"]).min() > 1e-3, "and not from the method's key"
    assert _equal(moved.history, again.history)
    assert np.array_equal(plain.history["noise"], moved.history["noise"]), "which stays as it was"
    assert not np.allclose(moved.history["targets"], _fit(key=1, transform=transform).history["targets"])


# ---------------------------------------------------------------- reports, callbacks


def test_progress(capfd):
    _fit()
    assert capfd.readouterr() == ("", "")
    _fit(progress=True)
    shown = capfd.readouterr().err
    assert "10/10" in shown
    assert "objective 8.5" in shown


def test_callbacks_see_every_chunk():
    events = []
    _fit(callbacks=[events.append])
    assert [event.step for event in events] == [4, 8, 10]
    assert [len(event.history["objective"]) for event in events] == [4, 4, 2]
    assert [float(event.state.params["x"]) for event in events] == [4, 8, 10]
    assert [float(event.posterior().params["x"]) for event in events] == [4, 8, 10]


def test_a_callback_stops_the_run_and_all_are_asked():
    asked = []

    def note(event):
        asked.append(event.step)
        return "not True"

    result = _fit(callbacks=[lambda event: event.step >= 8, note])
    assert (result.steps, result.stopped) == (8, "callback")
    assert result.params["x"] == 8
    assert asked == [4, 8]
    assert len(result.history["objective"]) == 8


def test_interrupt_keeps_the_state_so_far():
    def interrupt(event):
        if event.step == 8:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted; the result holds the state after 8 steps"):
        result = _fit(callbacks=[interrupt])
    assert (result.steps, result.stopped) == (8, "interrupted")
    assert result.params["x"] == 8
    assert len(result.history["objective"]) == 8


def test_early_stopping_remembers_the_best():
    scores = {2: 5.0, 4: 3.0, 6: 4.0, 8: 2.0, 10: 2.0, 12: 7.0, 14: np.nan, 16: 1.0}
    stopping = btl.EarlyStopping(lambda posterior: scores[int(posterior.params["x"])], patience=3)
    result = _fit(steps=100, chunk_size=2, callbacks=[stopping])
    assert (result.steps, result.stopped) == (14, "callback")
    assert (stopping.best_step, stopping.best_score) == (8, 2.0)
    assert stopping.best.params["x"] == 8
    with pytest.raises(ValueError, match="patience is 0; give a number of chunks, at least 1"):
        btl.EarlyStopping(lambda posterior: 0.0, patience=0)


# ---------------------------------------------------------------- failures


# Start 105 - n gives NaN at step n + 1, counted from 1: at the first of all, inside a chunk, and at both ends of one.
@pytest.mark.parametrize(("step", "kept"), [(1, 0), (2, 0), (3, 1), (4, 2), (5, 3), (6, 4), (10, 8)])
def test_nan_in_the_objective(step, kept):
    start = 106.0 - step
    with pytest.warns(RuntimeWarning) as caught:
        result = _fit(start)
    assert str(caught[0].message) == result.stopped
    assert result.stopped.startswith(
        f"the objective is nan at step {step}; the run stops and keeps the state after step {kept}. A smaller learning"
    )
    assert result.steps == kept
    assert result.state.count == kept
    np.testing.assert_array_equal(result.history["objective"], start + np.arange(kept))
    if kept:
        assert _equal(result.history, _fit(start, steps=kept).history)
        assert _equal(result.state, _fit(start, steps=kept).state)


# What the objective does not see, such as running statistics, is looked at after every chunk of four.
@pytest.mark.parametrize("step", [1, 2, 4, 5, 7, 10])
def test_infinity_in_a_part_of_the_state_that_the_objective_does_not_see(step):
    start = 206.0 - step
    with pytest.warns(RuntimeWarning, match=rf"^the state is not finite after step {step}; .* after step {step - 1}\."):
        result = _fit(start)
    assert result.steps == step - 1
    assert result.state.count == step - 1
    assert result.state.unseen == 0
    np.testing.assert_array_equal(result.history["objective"], start + np.arange(step - 1))


def test_callbacks_are_not_shown_a_failed_chunk():
    events = []
    with pytest.warns(RuntimeWarning, match="objective is nan at step 6"):
        _fit(100.0, callbacks=[events.append])
    assert [event.step for event in events] == [4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; give a whole number of training steps, at least 1"),
        ({"steps": 2.5}, "steps is 2.5; give a whole number"),
        ({"chunk_size": 0}, "chunk_size is 0; give a whole number of steps between reports, at least 1"),
        ({"batch_size": 11}, "batch_size 11 is not between 1 and the 10 examples of the data set"),
        ({"batch_size": 0}, "batch_size 0 is not between 1 and the 10 examples"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        _fit(**changes)


def test_empty_data_is_refused_before_it_gets_here():
    with pytest.raises(ValueError, match="the data set is empty; give at least one example"):
        btl.data.arrays(np.zeros((0, 2)), np.zeros(0, int))


def test_a_method_checks_its_data_before_anything_runs():
    def check(params, inputs, targets):
        assert (params, inputs.shape, targets.shape) == ({"x": 0.0}, (NUM, 1), (NUM,))
        raise ValueError("checked")

    def init(key, params):
        raise AssertionError("the check comes first")

    with pytest.raises(ValueError, match="checked"):
        btl.fit(jax.random.key(0), btl.Inference(init, _step, _posterior, check), {"x": 0.0}, DATA, steps=1)


def test_the_check_sees_what_the_transform_gives():
    """Pictures of bytes for a network that takes floats: the transform makes them so, inside the step."""
    net = btl.nets.conv_net(jax.random.key(0), (8, 8, 1), (4,), 3)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=6)
    data = btl.data.arrays(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 3)
    inference = btl.infer.map_estimate(joint, optax.sgd(0.1))

    def run(transform, targets=data.targets):
        return btl.fit(
            jax.random.key(0),
            inference,
            net.params,
            btl.data.arrays(data.inputs, targets),
            steps=1,
            transform=transform,
            progress=False,
        )

    normalize = btl.data.normalize(0.5, 0.5)
    assert np.isfinite(run(normalize).history["objective"]).all()
    # Labels are still checked by their values,
    with pytest.raises(ValueError, match="lie outside the support"):
        run(normalize, np.arange(6))
    # and what a transform makes of them by their shape.
    with pytest.raises((TypeError, ValueError), match="targets"):
        run(lambda key, batch: normalize(key, batch)._replace(targets=jax.nn.one_hot(batch.targets, 3)))
    many = btl.fit_many(
        jax.random.split(jax.random.key(0), 2),
        lambda scale: inference,
        jnp.ones(2),
        net.params,
        data,
        steps=1,
        transform=normalize,
        progress=False,
    )
    assert (many.failed < 0).all()
