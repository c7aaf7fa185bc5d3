"""Runs that are killed and started again give the same bits as runs that never stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
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

# Run as a process of its own: it can be killed. Prints a digest of all bits of the state and the history.
PROGRAM = """
import hashlib, sys
import jax, jax.numpy as jnp, numpy as np, optax
import bayestl as btl

directory, kind = sys.argv[1:3]
rng = np.random.default_rng(0)
net = btl.nets.mlp(jax.random.key(0), (10, 16, 3))
data = btl.data.arrays(rng.normal(size=(100, 10)).astype("f"), rng.integers(0, 3, 100))
joint = btl.LogJoint(net, btl.likelihoods.categorical(), btl.gaussians.isotropic(net.params, 1.0), num_data=100)
options = dict(steps=600, batch_size=16, chunk_size=10, progress=False)
if directory != "none":
    options["checkpoint"] = btl.Checkpoint(directory, every=50)

def say(event):
    print("step", event.step, flush=True)

optimizer = optax.adam(1e-2)
if kind == "vi":
    result = btl.fit(jax.random.key(1), btl.infer.mean_field_vi(joint, optimizer), net.params, data, callbacks=[say],
                     **options)
else:
    make = lambda scale: btl.infer.map_estimate(
        joint.replace(prior=btl.gaussians.isotropic(net.params, scale)), optimizer)
    keys = jax.random.split(jax.random.key(1), 3)
    result = btl.fit_many(keys, make, jnp.array([0.1, 1.0, 10.0]), net.params, data, callbacks=[say], **options)
leaves = jax.tree.leaves((result.state, result.history))
print("digest", hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in leaves)).hexdigest())
"""


def _run(directory: Path | str, kind: str, kill_at: int | None = None) -> str:
    """The program's digest; killed with SIGKILL as soon as it has reported step ``kill_at``."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory), kind], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            word, value = line.split()
            if word == "digest":
                return value
            if kill_at is not None and int(value) >= kill_at:
                process.send_signal(signal.SIGKILL)
                break
    finally:
        process.kill()
        process.wait(timeout=60)
        process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    return "killed"


@pytest.mark.representative("many")
@pytest.mark.parametrize("kind", ["vi", "many"])
def test_killed_at_random_steps_it_gives_the_same_bits(tmp_path, kind):
    expected = _run("none", kind)
    steps = sorted(np.random.default_rng(len(kind)).integers(60, 560, size=2).tolist())
    for step in steps:
        assert _run(tmp_path / "run", kind, kill_at=step) == "killed"
    assert any(path.name.isdigit() for path in (tmp_path / "run").iterdir()), (
        "no checkpoint was written before the last kill"
    )
    assert _run(tmp_path / "run", kind) == expected


# ---------------------------------------------------------------- what a checkpoint refuses, and what it bears

PARAMS = {"w": jnp.zeros(3)}
DATA = btl.data.arrays(np.arange(24.0).reshape(8, 3) / 10, np.arange(8.0))
KEY = jax.random.key(0)
OPTIMIZER = optax.sgd(1e-2)


def _joint(params=PARAMS, scale=1.0, activation=None):
    def network(p, x):
        outputs = x[:, : p["w"].shape[0]] @ p["w"]
        return outputs if activation is None else activation(outputs)

    net = btl.nets.from_function(network, params)
    return btl.LogJoint(net, btl.likelihoods.normal(1.0), btl.gaussians.isotropic(params, scale), num_data=8)


def _fit(
    directory,
    method=btl.infer.map_estimate,
    params=PARAMS,
    scale=1.0,
    key=KEY,
    data: Any = DATA,
    optimizer=OPTIMIZER,
    activation=None,
    **changes,
):
    options = {"steps": 40, "batch_size": 4, "chunk_size": 10, "progress": False, **changes}
    checkpoint, joint = btl.Checkpoint(directory, every=10), _joint(params, scale, activation)
    return btl.fit(key, method(joint, optimizer), params, data, checkpoint=checkpoint, **options)


def test_a_finished_run_goes_on_to_more_steps(tmp_path):
    short = _fit(tmp_path / "a", steps=20)
    longer = _fit(tmp_path / "a", steps=40)
    straight = _fit(tmp_path / "b", steps=40)
    assert np.array_equal(longer.params["w"], straight.params["w"])
    assert np.array_equal(longer.history["objective"], straight.history["objective"])
    assert not np.array_equal(short.params["w"], longer.params["w"])
    assert (short.stopped, longer.stopped) == ("finished", "finished")
    assert _fit(tmp_path / "a", steps=40).stopped == "already finished"
    with pytest.raises(ValueError, match="is of step 40, beyond steps=30; ask for 40 steps or more"):
        _fit(tmp_path / "a", steps=30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {"w": jnp.zeros(2)}}, r"is of another model: at '[^']*w' it has \[\[3\], 'float32'\].*\[\[2\]"),
        ({"method": btl.infer.mean_field_vi}, "is of another method: .*MAPState against .*MeanFieldVIState"),
        ({"key": jax.random.key(1)}, "was started with another key"),
        ({"batch_size": 2}, "used another batch size: 4 against 2"),
        ({"data": DATA.take(np.arange(6))}, "saw another number of examples: 8 against 6"),
        ({"scale": 2.0}, "had other numbers in its method"),
        ({"params": {"w": jnp.ones(3)}, "scale": 1.0}, "had other numbers in its method|had another start"),
        ({"data": btl.data.arrays(DATA.inputs, np.arange(8.0)[::-1])}, "saw other data"),
        ({"data": btl.data.arrays(100 * DATA.inputs, DATA.targets)}, "saw other data"),
        ({"optimizer": optax.sgd(2e-2)}, "takes other steps: the network, the likelihood, the optimizer, a learning"),
        ({"optimizer": optax.sgd(optax.linear_schedule(1e-2, 0, 40))}, "is of another model|takes other steps"),
        ({"activation": jnp.tanh}, "takes other steps"),
        ({"transform": lambda key, batch: batch._replace(inputs=-batch.inputs)}, "takes other steps"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, message):
    _fit(tmp_path)
    with pytest.raises(ValueError, match=message):
        _fit(tmp_path, **changes)
    # Nothing was lost: the run that it belongs to is still served.
    assert _fit(tmp_path).steps == 40


def test_another_number_of_devices_goes_on_with_a_warning(tmp_path, monkeypatch):
    _fit(tmp_path / "run", steps=20)
    expected = _fit(tmp_path / "straight").params["w"]
    monkeypatch.setattr(jax, "device_count", lambda: 7)
    with pytest.warns(RuntimeWarning, match=r"was written by devices 1 x \S+, and this is 7 x \S+; the run goes on"):
        again = _fit(tmp_path / "run")
    assert np.array_equal(again.params["w"], expected)


def test_what_was_done_is_saved_when_something_fails(tmp_path):
    expected = _fit(tmp_path / "straight")
    before = []

    def fails(event: btl.Progress) -> None:
        if event.step == 30:
            raise OSError("the disk of the callback is full")
        before.append(event.step)

    inference = btl.infer.map_estimate(_joint(), OPTIMIZER)
    options = {"steps": 40, "batch_size": 4, "chunk_size": 10, "progress": False}
    # Only the end of the run saves anything.
    checkpoint = btl.Checkpoint(tmp_path / "run", every=1000)
    with pytest.raises(OSError, match="disk of the callback"):
        btl.fit(KEY, inference, PARAMS, DATA, checkpoint=checkpoint, callbacks=[fails], **options)
    steps = []
    again = btl.fit(
        KEY, inference, PARAMS, DATA, checkpoint=checkpoint, callbacks=[lambda e: steps.append(e.step)], **options
    )
    # The callback is shown again what it did not come through with.
    assert (before, steps) == ([10, 20], [30, 40])
    assert np.array_equal(again.params["w"], expected.params["w"])


def test_another_package_version_goes_on_with_a_warning(tmp_path, monkeypatch):
    _fit(tmp_path, steps=20)
    expected = _fit(tmp_path / "straight").params["w"]
    monkeypatch.setattr(btl, "__version__", "0.0.0+other")
    with pytest.warns(RuntimeWarning, match=r"was written by version .*, and this is 0\.0\.0\+other; the run goes on"):
        again = _fit(tmp_path)
    assert np.array_equal(again.params["w"], expected)


def _cut_short(directory: Path, step: int) -> None:
    files = [file for file in (directory / str(step) / "state").rglob("*") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_truncated_checkpoint_falls_back_to_the_one_before(tmp_path):
    _fit(tmp_path / "run", steps=40)
    expected = _fit(tmp_path / "straight", steps=60)
    _cut_short(tmp_path / "run", 40)
    with pytest.warns(
        RuntimeWarning, match="checkpoint of step 40 in run cannot be read .* falls back to the previous one"
    ):
        again = _fit(tmp_path / "run", steps=60)
    assert np.array_equal(again.params["w"], expected.params["w"])
    assert np.array_equal(again.history["objective"], expected.history["objective"])


def test_when_no_checkpoint_can_be_read_it_says_so(tmp_path):
    _fit(tmp_path / "run", steps=40)
    for step in (30, 40):
        _cut_short(tmp_path / "run", step)
    with (
        pytest.warns(RuntimeWarning, match="cannot be read"),
        pytest.raises(ValueError, match=r"none of the checkpoints in run can be read \(steps \[30, 40\]"),
    ):
        _fit(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    assert _fit(tmp_path / "run").steps == 40


def test_constants_count_by_their_numbers(tmp_path):
    one, other = jnp.arange(4.0), jnp.arange(4.0).at[2].set(5.0)
    _fit(tmp_path, activation=lambda x: x + jnp.max(one), steps=20)
    with pytest.raises(ValueError, match="takes other steps"):
        _fit(tmp_path, activation=lambda x: x + jnp.max(other))
    assert _fit(tmp_path, activation=lambda x: x + jnp.max(one)).steps == 40


def test_a_stream_is_known_by_a_sample_of_its_rows(tmp_path):
    def stream(factor):
        records = [(factor * x, y) for x, y in zip(np.asarray(DATA.inputs), np.asarray(DATA.targets), strict=True)]
        return btl.data.stream(records, lambda record: record, num_workers=0)

    _fit(tmp_path, data=stream(1.0), steps=20)
    with pytest.raises(ValueError, match="saw other data"):
        _fit(tmp_path, data=stream(2.0))
    assert _fit(tmp_path, data=stream(1.0)).steps == 40


def test_members_have_one_program_and_their_own_settings(tmp_path):
    def many(rate: Any, scales: Any, data: Any = DATA):
        def make(scale):
            joint = _joint().replace(prior=btl.gaussians.isotropic(PARAMS, scale))
            return btl.infer.map_estimate(joint, optax.sgd(rate))

        keys, checkpoint = jax.random.split(KEY, 2), btl.Checkpoint(tmp_path, every=10)
        options = {"steps": 20, "batch_size": 4, "chunk_size": 10, "progress": False}
        return btl.fit_many(keys, make, jnp.array(scales), PARAMS, data, checkpoint=checkpoint, **options)

    many(1e-2, [1.0, 2.0])
    for arguments, message in (
        ((1e-2, [1.0, 3.0]), "had other numbers in its method"),
        ((2e-2, [1.0, 2.0]), "takes other steps"),
        ((1e-2, [1.0, 2.0], btl.data.arrays(2 * DATA.inputs, DATA.targets)), "saw other data"),
    ):
        with pytest.raises(ValueError, match=message):
            many(*arguments)
    assert many(1e-2, [1.0, 2.0]).steps == 20


# ---------------------------------------------------------------- damage, full disks, company


def _flip_a_bit(directory: Path, step: int, share: float) -> None:
    """One bit of the file that holds the arrays, the largest."""
    file = max((directory / str(step) / "state").rglob("*"), key=lambda file: file.stat().st_size * file.is_file())
    data = bytearray(file.read_bytes())
    assert len(data) > 4000
    data[int(share * len(data))] ^= 1
    file.write_bytes(data)


# The network does not use them, and no step moves them. Random numbers hardly compress.
WIDE = {"w": jax.random.normal(KEY, (2000,))}


def _fit_wide(directory: Path, **options: Any) -> btl.FitResult:
    net = btl.nets.from_function(lambda p, x: 0 * p["w"][: len(x)], WIDE)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=8)
    settings: Any = {"steps": 20, "batch_size": 4, "chunk_size": 10, "progress": False, **options}
    return btl.fit(
        KEY, btl.infer.map_estimate(joint, optax.sgd(1.0)), WIDE, DATA,
        checkpoint=btl.Checkpoint(directory, every=10), **settings,
    )  # fmt: skip


def test_a_flipped_bit_is_seen_and_passed_over(tmp_path):
    _fit_wide(tmp_path / "run")
    words = []
    for number, share in enumerate((0.3, 0.5, 0.7)):
        _flip_a_bit(tmp_path / "run", 20, share)
        name = f"unreadable-20{f'-{number + 1}' if number else ''}, and"
        match = rf"step 20 in run cannot be read \(.*\); it was renamed {name}"
        with pytest.warns(RuntimeWarning, match=match) as caught:
            again = _fit_wide(tmp_path / "run")
        words += [str(warning.message) for warning in caught]
        np.testing.assert_array_equal(again.params["w"], WIDE["w"])
        assert again.steps == 20
    # Not all of them does the reader notice by itself.
    assert any("arrays are not as they were written" in text for text in words)


# TensorStore goes on for a moment after the folder is gone, and complains to no one.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_that_goes_away_costs_no_run(tmp_path):
    expected = _fit(tmp_path / "straight")
    folder = tmp_path / "run"

    def remove(event: btl.Progress) -> None:
        if event.step == 20:
            while not folder.is_file():  # the writer may still be adding to it
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(IsADirectoryError):
                    folder.write_text("in its place")
        if event.step == 30:
            folder.unlink()

    with pytest.warns(RuntimeWarning, match=r"could not be written to run \(.*\); the run goes on, and tries again"):
        result = _fit(folder, callbacks=[remove])
    assert result.stopped == "finished"
    np.testing.assert_array_equal(result.params["w"], expected.params["w"])
    # The last checkpoint found room again.
    assert (folder / "40").is_dir()
    np.testing.assert_array_equal(_fit(folder).params["w"], expected.params["w"])


def test_what_cannot_be_written_is_known_before_the_run(tmp_path):
    (tmp_path / "file").write_text("in its place")
    with pytest.raises(OSError, match=r"the checkpoint directory .*file cannot be written \(FileExistsError"):
        _fit(tmp_path / "file")


HOLDER = """
import sys, time
from pathlib import Path
from bayestl.training._lock import Lock
held = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(120)
"""


def test_two_runs_are_not_in_one_folder(tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"is in use by another run \(process {holder.pid} on \S+ since 2"):
            _fit(tmp_path)
    finally:
        holder.kill()
        holder.wait(timeout=60)
        if holder.stdout is not None:
            holder.stdout.close()
    # However it ended, it is out.
    assert _fit(tmp_path).steps == 40


def test_bad_settings(tmp_path):
    inference = btl.infer.map_estimate(_joint(), OPTIMIZER)
    checkpoint = btl.Checkpoint(tmp_path, every=0)
    with pytest.raises(ValueError, match="every=0 and keep=2; both must be 1 or more"):
        btl.fit(KEY, inference, PARAMS, DATA, steps=5, batch_size=4, progress=False, checkpoint=checkpoint)
