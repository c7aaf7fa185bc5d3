"""What the package costs, as ratios measured in one run: ``python -m benchmarks.speed [PART ...]``.

Every ratio compares two programs that take turns, so that a machine whose speed drifts slows both; compile time is
apart. Targets are those the project set itself; a missed one is printed as missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._records import provenance
from benchmarks._speed_table import table

RESULTS = Path(__file__).parent / "results" / "speed.jsonl"
REPEATS = 5
RATE, MOMENTUM = 1e-3, 0.9
MEMBERS = 16


class Workload(NamedTuple):
    """A network with data, and how much of it is timed.

    Attributes:
        name: its name.
        net: the network.
        data: random pictures and labels, on the device.
        batch_size: examples per step.
        steps: steps per timing.
    """

    name: str
    net: btl.Net
    data: Any
    batch_size: int
    steps: int


def mlp() -> Workload:
    """265,000 parameters, batch 64: the parameters, not the products, dominate."""
    net = btl.nets.mlp(jax.random.key(0), (784, 256, 200, 64, 10))
    return Workload("MLP", net, _random_data((784,)), 64, 400)


def conv_net() -> Workload:
    """A ConvNet on 32x32 pictures, batch 16: the products dominate. Small, since XLA's convolutions inside a compiled
    loop run at about 1 GFLOP/s on a CPU, by hand or not."""
    net = btl.nets.conv_net(jax.random.key(0), (32, 32, 3), (8, 16), 10)
    return Workload("ConvNet", net, _random_data((32, 32, 3)), 16, 8)


def full_conv_net() -> Workload:
    """A ConvNet of three layers and 94,538 parameters, batch 64. Only for what runs one step per program on a CPU:
    inside a compiled loop a step takes seconds."""
    net = btl.nets.conv_net(jax.random.key(0), (32, 32, 3), (32, 64, 128), 10)
    return Workload("full ConvNet", net, _random_data((32, 32, 3)), 64, 20)


def _random_data(shape: tuple[int, ...]) -> Any:
    rng = np.random.default_rng(0)
    return btl.data.arrays(rng.normal(size=(2048, *shape)).astype(np.float32), rng.integers(0, 10, 2048))


def low_rank_prior(net: btl.Net, rank: int = 5) -> btl.gaussians.LowRank:
    """A low-rank prior at the network's parameters."""
    factor = jax.tree.map(lambda x: 0.1 * x, btl.tree.normal_like(jax.random.key(1), net.params, rank))
    return btl.gaussians.low_rank(net.params, 1.0, factor)


def map_under(work: Workload, prior: Any, learning_rate: float = RATE) -> btl.Inference:
    """MAP by SGD with momentum."""
    joint = btl.LogJoint(work.net, btl.likelihoods.categorical(), prior, num_data=work.data.num_examples)
    return btl.infer.map_estimate(joint, optax.sgd(learning_rate, momentum=MOMENTUM))


def by_fit(work: Workload, inference: btl.Inference, **options: Any) -> Callable[[], float]:
    """Seconds per step of ``btl.fit``, with further options of it."""

    def run() -> float:
        options_and_size = {"steps": work.steps, "batch_size": work.batch_size, "progress": False, **options}
        fitted = btl.fit(jax.random.key(0), inference, work.net.params, work.data, **options_and_size)
        return fitted.seconds / work.steps

    return run


def by_hand(work: Workload) -> Callable[[], float]:
    """Seconds per step of a plain optax loop: the same chunks, gathers and losses, written out."""
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    chunk = min(100, work.steps)
    size = work.data.num_examples

    def loss(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        logits = work.net.apply(params, (), inputs, None)[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @partial(jax.jit, donate_argnums=(0,))
    def run_chunk(carry: Any, inputs: jax.Array, labels: jax.Array, key: jax.Array) -> Any:
        def step(carry: Any, rows: jax.Array) -> Any:
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params, inputs[rows], labels[rows])
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        epochs = -(-chunk * work.batch_size // size)
        order = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, epochs)).ravel()
        return jax.lax.scan(step, carry, order[: chunk * work.batch_size].reshape(chunk, -1))

    def run() -> float:
        params = jax.tree.map(jnp.copy, work.net.params)
        carry = (params, optimizer.init(params))
        losses = []
        began = time.perf_counter()
        for i in range(work.steps // chunk):
            carry, values = run_chunk(carry, work.data.inputs, work.data.targets, jax.random.key(i))
            losses.append(np.asarray(values))
        jax.block_until_ready(carry)
        return (time.perf_counter() - began) / work.steps

    return run


def timed(function: Callable[[], Any]) -> Callable[[], float]:
    """Seconds of one call, its arrays waited for."""

    def run() -> float:
        began = time.perf_counter()
        jax.block_until_ready(function())
        return time.perf_counter() - began

    return run


def alternate(a: Callable[[], float], b: Callable[[], float], repeats: int) -> dict[str, Any]:
    """Both in turn, after one run each that compiles; seconds and the ratio a / b pair by pair."""
    began = time.perf_counter()
    a()
    middle = time.perf_counter()
    b()
    first = {"first_a": middle - began, "first_b": time.perf_counter() - middle}
    pairs = np.array([(a(), b()) for _ in range(repeats)])
    ratios = pairs[:, 0] / pairs[:, 1]
    return {
        "a": float(np.median(pairs[:, 0])),
        "b": float(np.median(pairs[:, 1])),
        "ratio": float(np.median(ratios)),
        "low": float(ratios.min()),
        "high": float(ratios.max()),
        **first,
    }


def show(name: str, times: dict[str, Any], target: float | None) -> dict[str, Any]:
    """Print one comparison and give it back as a row."""
    verdict = (
        ""
        if target is None
        else f"; target {target}: "
        + ("met" if times["ratio"] <= target else "within the spread" if times["low"] <= target else "missed")
    )
    print(
        f"{name}: ratio {times['ratio']:.3f} ({times['low']:.3f} to {times['high']:.3f}){verdict}; "
        f"{times['a'] * 1e3:.3f} ms against {times['b'] * 1e3:.3f} ms; first runs, with compilation, "
        f"{times['first_a']:.1f} s and {times['first_b']:.1f} s",
        flush=True,
    )
    return {"name": name, "target": target, **times}


def loop(repeats: int) -> list[dict[str, Any]]:
    """(a) fit without a prior against a plain loop, and (b) a low-rank prior against none."""
    rows = []
    for work, prior_target in ((mlp(), 1.5), (conv_net(), 1.10)):
        plain = by_fit(work, map_under(work, None))
        rows.append(show(f"(a) {work.name}: fit / plain optax scan", alternate(plain, by_hand(work), repeats), 1.05))
        informed = by_fit(work, map_under(work, low_rank_prior(work.net)))
        name = f"(b) {work.name}: fit with low-rank prior, k = 5 / fit without"
        rows.append(show(name, alternate(informed, plain, repeats), prior_target))
    return rows


def many(repeats: int) -> list[dict[str, Any]]:
    """(c) seeds and scales at once against one after another, on as many devices as there are."""
    return [
        _at_once_against_in_turn(mlp(), 1.0, repeats),
        _at_once_against_in_turn(conv_net(), None, repeats),
    ]


def _at_once_against_in_turn(work: Workload, target: float | None, repeats: int) -> dict[str, Any]:
    joint = btl.LogJoint(work.net, btl.likelihoods.categorical(), None, num_data=work.data.num_examples)
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    scales = jnp.geomspace(0.01, 1.0, MEMBERS)
    keys = jax.random.split(jax.random.key(0), MEMBERS)
    options = {"steps": max(work.steps // 4, 1), "batch_size": work.batch_size, "progress": False}

    def make(scale: Any) -> btl.Inference:
        prior = btl.gaussians.isotropic(work.net.params, scale)
        return btl.infer.map_estimate(joint.replace(prior=prior), optimizer)

    def at_once() -> float:
        return btl.fit_many(keys, make, scales, work.net.params, work.data, **options).seconds

    def in_turn() -> float:
        pairs = zip(scales, keys, strict=True)
        return sum(btl.fit(k, make(s), work.net.params, work.data, **options).seconds for s, k in pairs)

    name = f"(c) {work.name}: {MEMBERS} settings at once / one after another, {jax.device_count()} devices"
    return show(name, alternate(at_once, in_turn, repeats), target)


def variational(repeats: int) -> list[dict[str, Any]]:
    """(e) a step of mean-field VI with one draw against a step of MAP, under the same prior."""
    rows = []
    for work, target in ((mlp(), None), (conv_net(), 1.4)):
        prior = btl.gaussians.isotropic(work.net.params, 1.0)
        joint = btl.LogJoint(work.net, btl.likelihoods.categorical(), prior, num_data=work.data.num_examples)
        vi = by_fit(work, btl.infer.mean_field_vi(joint, optax.adam(RATE)))
        point = by_fit(work, btl.infer.map_estimate(joint, optax.adam(RATE)))
        rows.append(
            show(f"(e) {work.name}: mean-field VI, 1 draw / MAP, both Adam", alternate(vi, point, repeats), target)
        )
    return rows


def checkpoints(repeats: int) -> list[dict[str, Any]]:
    """(f) a run with a checkpoint every 100 steps against one without."""
    rows = []
    for work, target in ((mlp()._replace(steps=1000), None), (conv_net()._replace(steps=200), 1.05)):
        inference = map_under(work, None)
        without = by_fit(work, inference)

        def saved(work: Workload = work, inference: btl.Inference = inference) -> float:
            with tempfile.TemporaryDirectory() as directory:
                return by_fit(work, inference, checkpoint=btl.Checkpoint(directory, every=100))()

        name = f"(f) {work.name}: fit with a checkpoint every 100 steps / without"
        rows.append(show(name, alternate(saved, without, repeats), target))
    return rows


def streamed(repeats: int) -> list[dict[str, Any]]:
    """(g) pictures that stream from an array_record file against the same pictures on the device."""
    work = conv_net()
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2048, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 2048)
    shape = pictures.shape[1:]
    linear = btl.nets.from_function(_pixels_times_weights, {"w": jnp.zeros((math.prod(shape), 10))})
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        source = _array_records(Path(directory) / "pictures.array_record", pictures, labels)
        streams = btl.data.stream(source, partial(_decoded, shape=shape))
        resident = btl.data.arrays(pictures, labels)
        # A network that costs nothing shows the pipeline, and the ConvNet what is left of it in a run.
        for name, net, steps, batch_size in (("linear", linear, 100, 128), ("ConvNet", work.net, 40, 16)):
            joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=len(labels))
            inference = btl.infer.map_estimate(joint, optax.sgd(RATE))
            ours, theirs = (
                by_fit(Workload(name, net, data, batch_size, steps), inference, transform=btl.data.normalize(0.5, 0.5))
                for data in (streams, resident)
            )
            times = alternate(ours, theirs, repeats)
            row = show(f"(g) {name}, batch {batch_size}: streamed / on the device", times, None)
            rates = {"streamed_per_second": batch_size / times["a"], "resident_per_second": batch_size / times["b"]}
            print(
                f"(g) {name}: {rates['streamed_per_second']:.0f} against {rates['resident_per_second']:.0f} pictures/s"
            )
            rows.append({**row, **rates})
    return rows


def _pixels_times_weights(params: Any, inputs: jax.Array) -> jax.Array:
    return inputs.reshape(len(inputs), -1) @ params["w"]


def _array_records(path: Path, pictures: np.ndarray, labels: np.ndarray) -> Any:
    from array_record.python import array_record_data_source, array_record_module  # pyright: ignore[reportAttributeAccessIssue]

    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for picture, label in zip(pictures, labels, strict=True):
        writer.write(picture.tobytes() + bytes([label]))
    writer.close()
    return array_record_data_source.ArrayRecordDataSource(str(path))


def _decoded(record: bytes, *, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.frombuffer(record, np.uint8)
    return numbers[:-1].reshape(shape), numbers[-1].astype(np.int32)


def resnet50(repeats: int) -> list[dict[str, Any]]:
    """(h) on an accelerator: MAP steps of a ResNet-50 in bfloat16 under a prior of rank 5, batches of 256 pictures."""
    from benchmarks import resnet50

    return resnet50.rows(repeats, batch_size=256, size=224, steps=20)


def imports(repeats: int) -> list[dict[str, Any]]:
    """(d) ``import bayestl``: seconds, against jax alone, and which heavy libraries it loads."""

    def seconds(module: str) -> float:
        code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    times = alternate(partial(seconds, "bayestl"), partial(seconds, "jax"), repeats)
    heavy = ("tensorflow", "tensorflow_datasets", "matplotlib", "keras", "torch", "sklearn", "flax", "orbax")
    code = f"import bayestl, sys; print(*[m for m in {heavy!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    row = show("(d) import bayestl / import jax", times, None)
    print(f"(d) of {', '.join(heavy)} it loads: {', '.join(loaded) or 'none'}")
    return [{**row, "loads": loaded}]


def python(repeats: int) -> list[dict[str, Any]]:
    """(p) fit against a Python loop over a jitted step, (q) fit_many against as many loops."""
    from benchmarks import speed_python

    return speed_python.rows(repeats)


def full_size(repeats: int) -> list[dict[str, Any]]:
    """(p) again, and (b), for the ConvNet at full size."""
    from benchmarks import speed_python

    return speed_python.full_size(repeats)


def pictures(repeats: int) -> list[dict[str, Any]]:
    """(i) augmentation in the step, (j) a ResNet-50 beside torch's, (k) decoding."""
    from benchmarks import speed_pictures

    return [*speed_pictures.augmented(repeats), *speed_pictures.forward(repeats), *speed_pictures.decode(repeats)]


def posteriors(repeats: int) -> list[dict[str, Any]]:
    """(l) curvature, (m) linearised predictions, (n) steps of SGHMC and VI, (o) ensembles, beside peers in torch."""
    from benchmarks import speed_posteriors

    return speed_posteriors.rows(repeats)


def trust(repeats: int) -> list[dict[str, Any]]:
    """(t) a call of transfer against a MAP fit."""
    from benchmarks import speed_trust

    return speed_trust.rows(repeats)


def trust_large(repeats: int) -> list[dict[str, Any]]:
    """(t) the same where parameters and examples are many; several minutes."""
    from benchmarks import speed_trust

    return speed_trust.large_rows(repeats)


def judging(repeats: int) -> list[dict[str, Any]]:
    """(u) the table of evaluate against the forward passes."""
    from benchmarks import speed_judging

    return speed_judging.rows(repeats)


PARTS = {
    "loop": loop,
    "many": many,
    "python": python,
    "full_size": full_size,
    "imports": imports,
    "variational": variational,
    "checkpoints": checkpoints,
    "streamed": streamed,
    "pictures": pictures,
    "posteriors": posteriors,
    "trust": trust,
    "trust_large": trust_large,
    "judging": judging,
}
# Hours on a CPU; `make gpu` asks for it.
ACCELERATOR_PARTS = {"resnet50": resnet50}


def main() -> None:
    """Run the parts, each in a process of its own: parts want different numbers of host devices."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, *ACCELERATOR_PARTS, []], help="which parts; by default all"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        _run_here(arguments)
        return
    if not arguments.parts:
        arguments.out.unlink(missing_ok=True)
    for part in arguments.parts or PARTS:
        options = ["--here", "--repeats", str(arguments.repeats), "--out", str(arguments.out)]
        subprocess.run([sys.executable, "-m", "benchmarks.speed", part, *options], check=True)
    arguments.out.with_suffix(".md").write_text(table(arguments.out))


def _run_here(arguments: argparse.Namespace) -> None:
    (part,) = arguments.parts
    if part == "many":
        # One host device per core, over which members spread; a GPU or TPU is left as it is.
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    rows = {**PARTS, **ACCELERATOR_PARTS}[part](arguments.repeats)
    origin = provenance(f"python -m benchmarks.speed {part} --repeats {arguments.repeats}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    names = {row["name"] for row in rows}
    other_rows = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    other_rows = [line for line in other_rows if json.loads(line)["name"] not in names]
    with arguments.out.open("w") as file:
        file.writelines(line + "\n" for line in other_rows)
        file.writelines(json.dumps({**row, "repeats": arguments.repeats, **origin}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
