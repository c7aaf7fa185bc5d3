"""What training costs, for ``benchmarks.speed``: the loop, many members, VI, checkpoints, streams."""

from __future__ import annotations

import math
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._speed_work import (
    MEMBERS,
    MOMENTUM,
    RATE,
    Workload,
    alternate,
    by_fit,
    by_hand,
    conv_net,
    low_rank_prior,
    map_under,
    mlp,
    show,
)


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
