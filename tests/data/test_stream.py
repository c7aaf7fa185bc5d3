"""A data set that streams: the batches of the same examples on the device, read ahead and never twice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import bayestl as btl
from bayestl import data
from bayestl.data._window import local_positions

KEY = jax.random.key(3)


class Records:
    """N records of a picture and a label, which counts what is read of it."""

    def __init__(self, num: int):
        self.read: list[int] = []
        self._num = num

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, row: int) -> dict:
        if not 0 <= row < self._num:
            raise IndexError(row)
        self.read.append(row)
        return {"picture": np.full((2, 3), row % 256, np.uint8), "label": row % 5, "weight": row / 7}


def example(record: dict) -> tuple:
    return {"picture": record["picture"], "weight": record["weight"]}, record["label"]


def crop(record: dict, rng: np.random.Generator) -> tuple:
    return record["picture"], rng.integers(2**30)


def resident(num: int) -> data.ArrayData:
    rows = np.arange(num)
    pictures = np.tile(rows[:, None, None].astype(np.uint8), (1, 2, 3))
    return data.arrays({"picture": pictures, "weight": rows / 7}, rows % 5)


@jax.jit
def batch_of(window, step):
    return window.gather(window.indices(KEY, step, 1, 1)[0])


@partial(jax.jit, static_argnames="batch_size")
def wanted(placed, step, batch_size, key=KEY):
    return placed.batch(key, step, batch_size)


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def streaming() -> list[str]:
    """Threads of streams that are alive."""
    names = ("bayestl-stream", "grain-prefetch")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(names)]


# Examples, batch size, steps in a window: epochs that end inside a window, at its end and inside a batch.
@pytest.mark.parametrize(("num", "batch_size", "num_steps"), [(23, 5, 4), (12, 4, 3), (7, 7, 2), (9, 2, 20), (5, 3, 1)])
def test_batches_have_the_bits_of_those_on_the_device(num, batch_size, num_steps):
    streamed, placed = data.stream(Records(num), example), resident(num)
    assert streamed.num_examples == num
    assert streamed.steps_per_epoch(batch_size) == placed.steps_per_epoch(batch_size)
    with streamed.open(KEY, batch_size, num_steps) as window:
        for start in range(0, 25, num_steps):
            here = window(start)
            assert here.targets.shape == (num_steps, batch_size)
            for step in range(start, start + num_steps):
                assert_same(batch_of(here, jnp.int32(step)), wanted(placed, jnp.int32(step), batch_size))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_every_kind_of_key(impl):
    key = jax.random.key(5, impl=impl)
    assert_same(data.stream(Records(11), example).batch(key, 4, 4), resident(11).batch(key, 4, 4))


def test_old_keys():
    key = jax.random.PRNGKey(5)
    assert_same(data.stream(Records(11), example).batch(key, 4, 4), resident(11).batch(key, 4, 4))


@pytest.mark.x64
def test_x64_keeps_float64():
    streamed = data.stream(Records(11), example)
    assert streamed.batch(KEY, 2, 4).inputs["weight"].dtype == jnp.float64
    assert_same(streamed.batch(KEY, 2, 4), resident(11).batch(KEY, 2, 4))


def test_one_program_serves_all_windows_and_no_array_goes_to_the_device_by_itself():
    traced = []

    @jax.jit
    def total(window, step):
        traced.append(step)
        return window.gather(window.indices(KEY, step, 3, 4)[1]).targets.sum()

    with data.stream(Records(11), example).open(KEY, 4, 3) as window:
        steps = [jax.device_put(np.int32(start)) for start in (0, 3, 6, 30)]
        with jax.transfer_guard("disallow"):
            for start, step in zip((0, 3, 6, 30), steps, strict=True):
                jax.block_until_ready(total(window(start), step))
    assert len(traced) == 1


def test_windows_may_be_asked_for_anywhere():
    streamed, placed = data.stream(Records(23), example), resident(23)
    with streamed.open(KEY, 5, 4) as window:
        for start in (40, 44, 0, 4, 2, 1000):
            assert_same(batch_of(window(start), jnp.int32(start + 1)), wanted(placed, jnp.int32(start + 1), 5))


def test_the_last_two_windows_are_kept_and_the_rest_is_read_once():
    source = Records(40)
    streamed = data.stream(source, example, num_threads=1)
    source.read.clear()
    with streamed.open(KEY, 4, 2) as window:
        before, here = window(0), window(2)
        assert window(0) is before
        assert window(2) is here
        window(4)
        assert window(2) is here
        assert window(4) is window(4)
        wait_for(lambda: len(source.read) >= 32)  # three windows and the next are 4 x 2 x 4 examples
    expected = np.concatenate([rows for rows in resident(40).indices(KEY, 0, 8, 4)])
    assert source.read[:32] == expected.tolist()


def wait_for(condition, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_next_window_is_read_while_this_one_is_in_use():
    source = Records(1000)
    streamed = data.stream(source, example, num_threads=1)
    with streamed.open(KEY, 10, 5) as window:
        window(0)
        wait_for(lambda: len(source.read) >= 64 + 2 * 50)  # the examples checked first, this window and the next


@pytest.mark.parametrize("num_steps", [1, 4])
def test_random_decoding_depends_on_key_step_and_position_alone(num_steps):
    streamed = data.stream(Records(6), crop)
    drawn = []
    with streamed.open(KEY, 3, num_steps) as window:
        for step in range(8):
            batch = batch_of(window(step - step % num_steps), jnp.int32(step))
            assert_same(batch, streamed.batch(KEY, step, 3))
            drawn += np.asarray(batch.targets).tolist()
        assert_same(batch_of(window(30), jnp.int32(30)), streamed.batch(KEY, 30, 3))
    assert len(set(drawn)) == 24  # one row is drawn in many steps, and each time anew
    assert (np.asarray(streamed.batch(jax.random.key(4), 0, 3).targets) != drawn[:3]).all()


def test_threads_end_with_the_context():
    streamed = data.stream(Records(50), example, num_threads=3)
    with streamed.open(KEY, 5, 2) as window:
        window(0)
        assert len(streaming()) >= 2
    wait_for(lambda: not streaming())


def test_threads_end_when_a_run_is_interrupted():
    def interrupted():
        with data.stream(Records(50), example).open(KEY, 5, 2) as window:
            window(0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    wait_for(lambda: not streaming())


def test_sizes_of_windows():
    streamed = data.stream(Records(50), example, window_bytes=1000)
    # An example is 6 bytes of picture, a float32 and an int32.
    assert streamed.max_steps(7) == 1000 // (7 * 14)
    assert streamed.max_steps(50) == 1


def test_examples_are_the_first_ones():
    assert_same(data.stream(Records(70), example).first(64), resident(70).take(np.arange(64)).resident())
    assert_same(data.stream(Records(3), example).first(64), resident(3).resident())


@pytest.mark.parametrize("num_threads", [1, 4])
def test_rows_are_read_where_they_are_asked_for(num_threads):
    rows = np.array([7, 70, 3, 7, 71])
    streamed = data.stream(Records(80), example, num_threads=num_threads)
    assert_same(btl.Batch(*streamed.rows(rows)), resident(80).take(rows).resident())
    assert_same(btl.Batch(*streamed.rows(rows[:1])), resident(80).take(rows[:1]).resident())
    # What is drawn belongs to the row.
    drawn = data.stream(Records(80), crop, num_threads=num_threads).rows(rows)[1]
    assert drawn[0] == drawn[3]
    assert len(set(drawn.tolist())) == 4
    with pytest.raises(ValueError, match="row 70 of the source cannot be read: OSError: bad block"):
        data.stream(Broken(80, 70), example, num_threads=num_threads).rows(rows)


def test_other_sources():
    import grain

    pairs = [example(Records(9)[row]) for row in range(9)]
    for source in (pairs, grain.MapDataset.source(Records(9)).map(example)):
        streamed = data.stream(source, lambda pair: pair)
        assert_same(streamed.batch(KEY, 1, 4), resident(9).batch(KEY, 1, 4))


@pytest.mark.slow
def test_worker_processes_give_the_same_and_end():
    import multiprocessing

    # Batches under 10 examples; a worker starts in some seconds, since it imports JAX.
    streamed, placed = data.stream(Records(23), example, num_workers=2, num_threads=1), resident(23)
    with streamed.open(KEY, 5, 4) as window:
        for start in (0, 4, 8):
            for step in range(start, start + 4):
                assert_same(batch_of(window(start), jnp.int32(step)), wanted(placed, jnp.int32(step), 5))
    wait_for(lambda: not multiprocessing.active_children())
    broken = data.stream(Broken(200, 150), example, num_workers=1)
    words = "row 150 of the source cannot be read: OSError: bad block"
    with broken.open(KEY, 100, 2) as window, pytest.raises(ValueError, match=words):
        window(0)
    wait_for(lambda: not multiprocessing.active_children())


# ---------------------------------------------------------------- runs


def test_a_run_has_the_bits_of_one_on_the_device_also_when_it_goes_on_from_a_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 3, 50)
    net = btl.nets.mlp(KEY, (4, 3))
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=50)
    method = btl.infer.map_estimate(joint, optax.sgd(0.1, momentum=0.9))
    # Five steps a window: 8 examples of 16 bytes and a label of 4.
    streamed = data.stream([*zip(inputs, targets, strict=True)], lambda pair: pair, window_bytes=5 * 8 * 20)

    def fit(dataset, steps, checkpoint=None):
        options = {"batch_size": 8, "chunk_size": 5, "progress": False, "checkpoint": checkpoint}
        return btl.fit(KEY, method, net.params, dataset, steps=steps, **options)

    wanted = fit(data.arrays(inputs, targets), 32)
    saved = btl.Checkpoint(tmp_path / "run", every=5)
    fit(streamed, 15, saved)
    for fitted in (fit(streamed, 32), fit(streamed, 32, saved)):
        assert_same(fitted.params, wanted.params)
        np.testing.assert_array_equal(fitted.history["objective"], wanted.history["objective"])


# ---------------------------------------------------------------- many devices

MESH = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from bayestl import data
pictures, labels = np.arange(46, dtype=np.uint8).reshape(23, 2), np.arange(23)
streamed = data.stream([*zip(pictures, labels)], lambda pair: pair)
placed, key = data.arrays(pictures, labels), jax.random.key(0)
orders = {"rows": (np.arange(8), ("data",)), "mixed": (np.arange(8).reshape(2, 4).T, ("data", "model"))}
for order, names in orders.values():
    mesh = Mesh(np.array(jax.devices())[order], names, axis_types=(AxisType.Auto,) * len(names))
    sharding = NamedSharding(mesh, P("data"))
    with streamed.open(key, 16, 3, sharding) as window:
        for start in (0, 3):
            here = window(start)
            assert here.inputs.sharding.is_equivalent_to(NamedSharding(mesh, P(None, "data")), 3)
            assert here.first.sharding.is_fully_replicated
            got = jax.jit(lambda w, s: w.gather(w.indices(key, s, 3, 16)[2]))(here, start)
            want = placed.batch(key, start + 2, 16)
            np.testing.assert_array_equal(got.inputs, want.inputs)
            np.testing.assert_array_equal(got.targets, want.targets)
print("same")
"""


def test_windows_on_a_mesh():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", MESH], capture_output=True, text=True, env=environment, timeout=240)
    assert run.stdout == "same\n", run.stderr


TWO = """
import sys, jax, numpy as np
process, port = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from bayestl import data
read = []
class Records(list):
    def __getitem__(self, row):
        read.append(row)
        return row
streamed = data.stream(Records(range(100)), lambda row: (row, row), num_threads=1)
placed, key = data.arrays(np.arange(100), np.arange(100)), jax.random.key(0)
for order in ([0, 1, 2, 3], [0, 2, 1, 3]):
    mesh = Mesh(np.array(jax.devices())[order], ("data",), axis_types=(AxisType.Auto,))
    mine = [i for i, device in enumerate(mesh.devices) if device.process_index == process]
    read.clear()
    with streamed.open(key, 8, 3, NamedSharding(mesh, P("data"))) as window:
        here = window(3)
        whole = process_allgather(here.inputs, tiled=True)
    want = np.asarray(placed.indices(key, 3, 3, 8))
    np.testing.assert_array_equal(whole, want)
    assert int(here.first) == 3
    # Two positions of a batch on each device, in the order of the global batch.
    np.testing.assert_array_equal(read[:12], want.reshape(3, 4, 2)[:, mine].ravel())
print("same")
"""


def test_two_processes_make_one_batch_and_each_reads_its_own_part():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    runs = [subprocess.Popen([sys.executable, "-c", TWO, process, port], **options) for process in "01"]
    try:
        for run in runs:
            out, errors = run.communicate(timeout=240)
            assert out.endswith("same\n"), errors
    finally:
        for run in runs:
            run.kill()


class OneProcess:
    """The sharding of a batch as one of several processes sees it, each with some devices in a row."""

    def __init__(self, devices: list[int], num_devices: int):
        self._devices, self._num = devices, num_devices

    def addressable_devices_indices_map(self, shape: tuple[int]) -> dict:
        part = shape[0] // self._num
        return {device: (slice(device * part, (device + 1) * part),) for device in self._devices}


@pytest.mark.parametrize("owned", [([0, 1], [2, 3]), ([3, 0], [1, 2])])
def test_processes_read_disjoint_parts_of_one_batch(owned):
    parts = [local_positions(OneProcess(devices, 4), 12) for devices in owned]  # type: ignore
    assert all((np.diff(part) > 0).all() for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(12))
    np.testing.assert_array_equal(parts[0], np.sort(np.concatenate([np.arange(3) + 3 * d for d in owned[0]])))


def test_replicated_batches_are_read_in_full_and_once():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    np.testing.assert_array_equal(local_positions(NamedSharding(mesh, PartitionSpec()), 5), np.arange(5))
    np.testing.assert_array_equal(local_positions(None, 5), np.arange(5))


# ---------------------------------------------------------------- refusals


class Broken(Records):
    """A source with one record that cannot be read."""

    def __init__(self, num: int, bad: int):
        super().__init__(num)
        self._bad = bad

    def __getitem__(self, row: int) -> dict:
        if row == self._bad:
            raise OSError("bad block")
        return super().__getitem__(row)


def test_failures_in_the_background_reach_the_run():
    streamed = data.stream(Broken(80, 70), example)
    with streamed.open(KEY, 40, 2) as window, pytest.raises(ValueError, match="row 70 of the source cannot be read"):
        window(0)
    wait_for(lambda: not streaming())

    def decode(record):
        if record["picture"][0, 0] == 66:
            raise RuntimeError("no JPEG")
        return example(record)

    streamed = data.stream(Records(80), decode)
    with streamed.open(KEY, 80, 1) as window:
        for _ in range(2):  # the second request starts anew, and neither of them hangs
            with pytest.raises(ValueError, match="example failed on row 66: RuntimeError: no JPEG"):
                window(0)


def test_sources_without_random_access():
    with pytest.raises(TypeError, match=r"source is a generator without __len__ and __getitem__; .*tfds.data_source"):
        data.stream((i for i in range(3)), example)
    with pytest.raises(ValueError, match="source has no records"):
        data.stream([], example)
    import grain

    with pytest.raises(ValueError, match=r"an endless one; leave out repeat\(\)"):
        data.stream(grain.MapDataset.source(Records(3)).repeat(), example)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (np.zeros(3), "example returned a ndarray on row 0; it must return the pair"),
        ((np.zeros(3), 1, 2), "example returned a tuple of 3 on row 0; it must"),
    ],
)
def test_examples_that_are_no_pair(returned, words):
    with pytest.raises(TypeError, match=words):
        data.stream([0], lambda record: returned)
    with pytest.raises(TypeError, match="example is a str; give a function from a record"):
        data.stream([0], "image")  # type: ignore


def test_examples_that_are_not_numbers():
    with pytest.raises(TypeError, match="targets of row 0 has dtype <U3; a data set holds numbers"):
        data.stream([0], lambda record: (np.zeros(2), "cat"))
    with pytest.raises(TypeError, match="inputs at 'file' of row 0 has dtype"):
        data.stream([0], lambda record: ({"file": b"x"}, 1))
    with pytest.raises(ValueError, match="example returned targets without an array"):
        data.stream([0], lambda record: (np.zeros(2), None))


def test_examples_that_differ():
    sizes = [3, 3, 4]
    with pytest.raises(
        ValueError, match=r"inputs at 'x' has shape \(4,\) in row 2 and \(3,\) in row 0; .*resize, crop"
    ):
        data.stream(sizes, lambda size: ({"x": np.zeros(size)}, 0))
    with pytest.raises(ValueError, match="row 1 has inputs at 'b', targets and row 0 has inputs at 'a', targets"):
        data.stream(["a", "b"], lambda name: ({name: np.zeros(2)}, 0))
    with pytest.raises(TypeError, match=r"targets has dtype float64 in row 1, and its values do not fit the int32"):
        data.stream([1, 1.5], lambda label: (np.zeros(2), label))
    with pytest.raises(TypeError, match=r"targets has dtype int64 in row 1, and its values do not fit the int32"):
        data.stream([1, 2**40], lambda label: (np.zeros(2), label))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite(value):
    with pytest.raises(ValueError, match="inputs has NaN or infinite values in row 2, as float32; fill them in"):
        data.stream([0.0, 1.0, value], lambda x: (np.full(3, x), 0))


@pytest.mark.parametrize("batch_size", [0, 7])
def test_batch_size_out_of_range(batch_size):
    streamed = data.stream(Records(6), example)
    words = f"batch_size {batch_size} is not between 1 and the 6 examples of the stream.*batch_size=6"
    with pytest.raises(ValueError, match=words):
        streamed.check_batch_size(batch_size)
    with pytest.raises(ValueError, match=words), streamed.open(KEY, batch_size, 2):
        pass
    streamed.check_batch_size(6)


@pytest.mark.parametrize(("name", "value"), [("num_threads", 0), ("num_workers", -1), ("window_bytes", 0.5)])
def test_options_out_of_range(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}; (give a whole number, at least|it must be at least 0)"):
        data.stream(Records(3), example, **{name: value})
