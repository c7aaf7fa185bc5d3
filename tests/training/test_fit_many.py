"""Many fits at once: every member is what it would be alone."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl
from bayestl.training._members import MemberChunks

NUM, SIZE, BATCH, MEMBERS = 12, 3, 5, 3
# Vectorised and single programs may round differently, 1e-16 a step.
RTOL = 1e-12
RUN = {"steps": 10, "batch_size": BATCH, "chunk_size": 4, "progress": False}


def _apply(params: Any, state: Any, inputs: Any, key: Any) -> tuple[Any, Any]:
    """A linear network that counts its steps, from 1, and gives NaN at one of them."""
    outputs = jnp.where(state["count"] == state["fails_at"], jnp.nan, inputs @ params["w"] + params["b"])
    return outputs, {**state, "count": state["count"] + 1}


def make(setting: Any) -> btl.Inference:
    """Everything that may be traced differs between members."""
    params = {"b": jnp.zeros(()), "w": jnp.zeros(SIZE)}
    net = btl.Net(params, {"count": jnp.int32(1), "fails_at": jnp.asarray(setting["fails_at"], jnp.int32)}, _apply)
    prior = btl.gaussians.isotropic(params, setting["scale"])
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.5), prior, num_data=NUM, kappa=setting["kappa"])
    return btl.infer.proximal_map(joint, setting["rate"], momentum=0.5)


SETTINGS = {
    "scale": np.array([0.1, 1.0, 5.0]),
    "rate": np.array([0.01, 0.02, 0.03]),
    "kappa": np.array([1.0, 2.0, 0.5]),
    "fails_at": np.zeros(MEMBERS, np.int32),
}
START = {"b": np.float64(0.0), "w": np.zeros(SIZE)}


def _failing_at(*steps: int) -> dict[str, np.ndarray]:
    return {**SETTINGS, "fails_at": np.array(steps, np.int32)}


def _data(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return btl.data.arrays(rng.normal(size=(NUM, SIZE)), rng.normal(size=NUM))


def _keys() -> jax.Array:
    return jax.random.split(jax.random.key(7), MEMBERS)


def _many(settings: Any = None, **changes: Any) -> btl.ManyResult:
    given = {"keys": _keys(), "params": START, "data": _data(), **RUN, **changes}
    return btl.fit_many(make_inference=make, settings=SETTINGS if settings is None else settings, **given)


def _member(tree: Any, m: int) -> Any:
    return jax.tree.map(lambda x: x[m], tree)


def _alone(m: int, settings: Any = None, **changes: Any) -> btl.FitResult:
    given = {"params": START, "data": _data(), **RUN, **changes}
    return btl.fit(_keys()[m], make(_member(SETTINGS if settings is None else settings, m)), **given)


def _assert_close(found: Any, truth: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(truth)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=RTOL, atol=RTOL)


# ---------------------------------------------------------------- every member is what it would be alone


@pytest.mark.x64
@pytest.mark.parametrize("vectorize", [jax.vmap, btl.sequentially], ids=["vmap", "sequentially"])
def test_members_equal_single_fits(vectorize):
    many = _many(vectorize=vectorize)
    assert (many.steps, many.stopped, many.failed.tolist()) == (10, "finished", [-1] * MEMBERS)
    assert many.history["objective"].shape == (MEMBERS, 10)
    assert many.params["w"].shape == (MEMBERS, SIZE)
    for m in range(MEMBERS):
        alone = _alone(m)
        _assert_close(_member(many.state, m), alone.state)
        _assert_close(_member(many.params, m), alone.params)
        _assert_close(_member(many.net_state, m), alone.net_state)
        _assert_close(_member(many.history, m), alone.history)
    assert len({float(x) for x in many.params["b"]}) == MEMBERS


@pytest.mark.x64
def test_members_with_starts_and_data_of_their_own():
    members = [_data(seed) for seed in range(MEMBERS)]
    starts = {"b": np.arange(3.0), "w": np.random.default_rng(5).normal(size=(MEMBERS, SIZE))}
    many = _many(params=starts, data=btl.data.stack(members), params_axis=0, data_axis=0)
    for m in range(MEMBERS):
        alone = _alone(m, params=_member(starts, m), data=members[m])
        _assert_close(_member(many.state, m), alone.state)
        _assert_close(_member(many.history, m), alone.history)


DEVICES = """
import sys; sys.path[:0] = sys.argv[1:]
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
import json, warnings
import numpy as np, test_fit_many as t, bayestl as btl
assert len(jax.devices()) == 2
settings = t._failing_at(0, 0, 6)
data = btl.data.stack([t._data(seed) for seed in range(t.MEMBERS)])
seen = []
warnings.simplefilter("ignore", RuntimeWarning)
for devices in (jax.devices()[:1], None):
    many = t._many(settings, data=data, data_axis=0, devices=devices, callbacks=[lambda e: seen.append(e.posterior())])
    seen.append((many.params, many.history["objective"], many.failed, many.net_state))
one, two = seen[:len(seen) // 2], seen[len(seen) // 2:]
assert jax.tree.structure(one) == jax.tree.structure(two)
apart = jax.tree.map(lambda x, y: float(np.max(np.abs(np.nan_to_num(x) - np.nan_to_num(y)))), one, two)
print(json.dumps({"apart": max(jax.tree.leaves(apart)), "failed": many.failed.tolist(),
                  "shape": list(many.params["w"].shape), "devices": len(many.state.params["w"].devices())}))
"""


def test_several_host_devices_give_what_one_gives():
    # Three members on two devices: one is padded, and the last one, of which the padding is a copy, fails.
    here = Path(__file__).parent
    command = [sys.executable, "-c", DEVICES, str(here), str(here.parent.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failed"] == [-1, -1, 6]
    assert found["shape"] == [MEMBERS, SIZE]
    assert found["apart"] < 1e-12


# ---------------------------------------------------------------- failures


@pytest.mark.x64
def test_a_member_that_fails_is_frozen_while_the_others_go_on():
    events = []
    message = (
        r"2 of 3 members became non-finite and were frozen at the state before: 0 \(step 1\), 2 \(step 6\); a small"
    )
    with pytest.warns(RuntimeWarning, match=message):
        many = _many(_failing_at(1, 0, 6), callbacks=[events.append])
    assert many.failed.tolist() == [1, -1, 6]
    assert [event.step for event in events] == [4, 8, 10]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(many.state))
    _assert_close(_member(many.params, 0), jax.tree.map(jnp.asarray, START))
    _assert_close(_member(many.params, 1), _alone(1).params)
    # Step 6 gave NaN: member 2 stays where it was after step 5. (4 steps and more share one program.)
    _assert_close(_member(many.params, 2), _alone(2, steps=5).params)
    assert many.net_state["count"].tolist() == [1, 11, 6]
    np.testing.assert_array_equal(np.isfinite(many.history["objective"][2]), np.arange(10) < 5)


@pytest.mark.x64
def test_a_frozen_member_stays_frozen_when_later_batches_are_good():
    # The example that overflows is in one batch of every epoch of three; the order of the data says which.
    inputs = np.asarray(_data(1).inputs).copy()
    inputs[0] = 1e200
    members = [_data(0), btl.data.arrays(inputs, _data(1).targets), _data(2)]
    starts = {"b": np.ones(MEMBERS), "w": np.ones((MEMBERS, SIZE))}
    order = jax.random.split(_keys()[1], 3)[1]
    batches = np.asarray(members[1].indices(order, 0, 10, BATCH))
    step = int(np.argmax((batches == 0).any(axis=1))) + 1
    with pytest.warns(RuntimeWarning, match=rf"1 of 3 members .* 1 \(step {step}\)"):
        many = _many(params=starts, data=btl.data.stack(members), params_axis=0, data_axis=0)
    assert many.failed.tolist() == [-1, step, -1]
    assert many.net_state["count"].tolist() == [11, step, 11]


# ---------------------------------------------------------------- reports, programs


@pytest.mark.x64
def test_callbacks_see_all_members_and_may_stop_them():
    events = []

    def stop(event):
        events.append((event.step, event.history["objective"].shape, event.posterior().params["w"]))
        return event.step == 8

    many = _many(callbacks=[stop])
    assert (many.steps, many.stopped) == (8, "callback")
    assert [event[:2] for event in events] == [(4, (MEMBERS, 4)), (8, (MEMBERS, 4))]
    np.testing.assert_array_equal(events[-1][2], many.params["w"])
    assert many.history["objective"].shape == (MEMBERS, 8)


@pytest.mark.x64
def test_interrupt_keeps_the_states_so_far():
    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="interrupted; the result holds the states after 4 steps"):
        many = _many(callbacks=[interrupt])
    assert (many.steps, many.stopped) == (4, "interrupted")
    assert many.net_state["count"].tolist() == [5] * MEMBERS


@pytest.mark.x64
def test_progress(capfd):
    _many()
    assert capfd.readouterr() == ("", "")
    with pytest.warns(RuntimeWarning, match="1 of 3"):
        _many(_failing_at(0, 3, 0), progress=True)
    shown = capfd.readouterr().err
    assert "10/10" in shown
    assert "1 of 3 frozen" in shown


@pytest.mark.x64
def test_other_settings_need_no_other_program():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    seen = []
    _many(callbacks=[lambda event: seen.append(len(compiled))])
    assert seen[0] == seen[-1], "a later chunk compiled something"
    before = len(compiled)
    _many({name: values * 2 for name, values in SETTINGS.items()})
    assert len(compiled) == before
    jax.jit(lambda x: x + 1)(1.0)
    assert len(compiled) > before, "the counter must be able to count"


# ---------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {**SETTINGS, "rate": np.ones(2)}}, r"settings at 'rate' has shape \(2,\), but there are 3 keys"),
        ({"settings": {**SETTINGS, "kappa": 1.0}}, r"settings at 'kappa' has shape \(\), but .* a leading axis of 3"),
        ({"keys": "old"}, "keys must be an array of keys"),
        ({"params_axis": 1}, r"params_axis is 1; it can be 0 \(a leading member axis\) or None \(shared\)"),
        ({"params_axis": 0}, r"params at 'b' has shape \(\), but there are 3 keys"),
        ({"data_axis": 0}, r"data at 'inputs' has shape \(12, 3\), but there are 3 keys"),
        ({"batch_size": 13}, "batch_size 13 is not between 1 and the 12 examples"),
        ({"steps": 0}, "steps is 0"),
        ({"params": {"b": 0.0, "w": np.zeros(4)}}, r"prior and params differ at 'w': \(3,\) against \(4,\)"),
    ],
)
def test_refuses(changes, message):
    keys = {"one": jax.random.key(0), "old": jnp.zeros((3, 2), jnp.uint32)}
    if "keys" in changes:
        changes = {"keys": keys[changes["keys"]]}
    with pytest.raises(ValueError, match=message):
        _many(**changes)


def test_a_method_checks_all_data():
    def classify(setting):
        net = btl.nets.from_function(lambda params, x: x @ params, jnp.zeros((SIZE, 2)))
        joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=4)
        return btl.infer.map_estimate(joint, optax.sgd(setting))

    labels = np.array([[0, 1, 0, 1], [0, 1, 0, 2]])
    members = [btl.data.arrays(np.ones((4, SIZE)), row) for row in labels]
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="1 of 8 targets lie outside the support"):
        btl.fit_many(keys, classify, jnp.ones(2), jnp.zeros((SIZE, 2)), btl.data.stack(members), steps=1, data_axis=0)


# ---------------------------------------------------------------- results of one member, streams


@pytest.mark.x64
def test_a_member_is_what_fit_gives():
    with pytest.warns(RuntimeWarning, match="1 of 3 members"):
        many = _many(_failing_at(0, 0, 6))
    assert len(many) == MEMBERS
    for m, member in enumerate(many):
        alone = _alone(m, steps=10 if m < 2 else 5)
        assert (member.member, member.steps, member.failed) == (m, alone.steps, -1 if m < 2 else 6)
        _assert_close(member.params, alone.params)
        _assert_close(member.history, alone.history)
        _assert_close(member.net_state["count"], alone.net_state["count"])
    assert many.member(-1).stopped == "step 6 was not finite; the state is that before it"
    with pytest.raises(IndexError, match="there is no member 3 among 3"):
        many.member(3)


@pytest.mark.x64
def test_the_best_member_has_the_lowest_score_of_those_that_came_through():
    with pytest.warns(RuntimeWarning, match="1 of 3 members"):
        many = _many(_failing_at(0, 0, 6))
    values = many.params["b"].tolist()
    best = many.best(lambda posterior: posterior.params["b"])
    assert best.member == int(np.argmin(values[:2]))
    assert many.best(lambda posterior: np.nan if posterior.params["b"] == best.params["b"] else 0).member != best.member
    with pytest.raises(ValueError, match="none of 3 members has a score: 1 failed"):
        many.best(lambda posterior: np.nan)


@pytest.mark.x64
def test_members_share_the_batches_of_a_stream_in_the_order_of_the_first_key():
    data = _data()
    records = [(np.asarray(x), np.asarray(y)) for x, y in zip(data.inputs, data.targets, strict=True)]
    streams = btl.data.stream(records, lambda record: record, num_threads=1)
    same_key = jnp.stack([_keys()[0]] * MEMBERS)
    _assert_close(_many(data=streams).state, _many(keys=same_key).state)
    with pytest.raises(TypeError, match="data is a StreamData, which streams and has no leading axis of members"):
        _many(data=streams, data_axis=0)


# ---------------------------------------------------------------- interrupts


class _Interrupting:
    """An array of a chunk's infos that Ctrl-C hits while it is copied to the host."""

    def __init__(self, values: Any, left: list[int]):
        self._values, self._left = values, left

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        self._left[0] -= 1
        if self._left[0] == 0:
            raise KeyboardInterrupt
        return np.asarray(self._values)


@pytest.mark.x64
@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_an_interrupt_at_any_moment_leaves_state_step_and_history_of_one_moment(at, monkeypatch):
    # Three infos a chunk: the copies of the first chunk and of the second are hit.
    left, original = [at], MemberChunks.__call__

    def hit(self, *args: Any) -> Any:
        carry, infos = original(self, *args)
        return carry, infos._replace(**{name: _Interrupting(x, left) for name, x in infos._asdict().items()})

    monkeypatch.setattr(MemberChunks, "__call__", hit)
    with pytest.warns(RuntimeWarning, match="interrupted"):
        many = _many()
    assert many.steps == (0 if at <= 3 else 4)
    assert many.net_state["count"].tolist() == [many.steps + 1] * MEMBERS
    assert all(values.shape[1] == many.steps for values in many.history.values())


# ---------------------------------------------------------------- networks with convolutions

SGD = optax.sgd(0.1, momentum=0.5)
PICTURES = btl.data.arrays(
    np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32), np.arange(6, dtype=np.int32) % 3
)


def _on_pictures(scale: Any, optimizer: Any = SGD) -> btl.Inference:
    net = btl.nets.conv_net(jax.random.key(0), (8, 8, 1), (2,), 3)
    prior = btl.gaussians.isotropic(net.params, scale)
    return btl.infer.map_estimate(btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=6), optimizer)


def test_convolutions_step_by_step_give_one_result_however_chunked():
    start = btl.nets.conv_net(jax.random.key(0), (8, 8, 1), (2,), 3).params
    run = {"steps": 5, "batch_size": 4, "progress": False}
    scales, keys = jnp.array([0.5, 1.0, 2.0]), _keys()
    first, *others = [
        btl.fit_many(keys, _on_pictures, scales, start, PICTURES, chunk_size=size, **run) for size in (1, 2, 5)
    ]
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, (other.state, other.history), (first.state, first.history))
    # Programs that group convolutions differently sum in another order, 1e-7 a step.
    for m, member in enumerate(first):
        alone = btl.fit(keys[m], _on_pictures(scales[m]), start, PICTURES, chunk_size=3, **run)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), member.state, alone.state)
    beside = btl.fit_many(keys, _on_pictures, scales, start, PICTURES, vectorize=jax.vmap, **run)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), beside.state, first.state)


def test_steps_with_convolutions_are_dispatched_one_by_one_on_a_cpu():
    if jax.default_backend() != "cpu":
        pytest.skip("the policy is for CPUs")
    in_loop = []

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        in_loop.append("fori_loop" in {frame.function for frame in inspect.stack(context=0)})
        return updates, state

    noting = optax.chain(SGD, optax.GradientTransformation(lambda params: optax.EmptyState(), update))
    start = btl.nets.conv_net(jax.random.key(0), (8, 8, 1), (2,), 3).params
    run = {"steps": 3, "batch_size": 4, "chunk_size": 3, "progress": False}
    btl.fit(jax.random.key(0), _on_pictures(1.0, noting), start, PICTURES, **run)
    # Traced for a loop first, in which convolutions were found, and at last as a program of its own.
    assert any(in_loop)
    assert not in_loop[-1]
