"""What pictures cost, for ``benchmarks.speed``: augmentation in the step, a ResNet-50 beside torch's, decoding."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._peers import peer
from benchmarks._published import NETWORKS, as_run_here
from benchmarks._speed_work import Workload, alternate, by_fit, show, timed
from benchmarks.tasks.cats_vs_dogs_views import AUGMENT, PHOTOGRAPHS, example

SIZE, BATCH, STEPS = 96, 32, 2
RESNET_BATCH, RESNET_SIZE = 8, 224


def augmented(repeats: int) -> list[dict[str, Any]]:
    """(i) training all of MobileNet: fit, from bytes, with the recipe's augmentation, against the bare network's step.

    Both run their steps in one compiled loop, with convolutions as products on a CPU. The step of the bare network with
    XLA's own convolutions, compiled by itself, is timed beside them.
    """
    network = NETWORKS["mobilenet"]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (256, SIZE, SIZE, 3), dtype=np.uint8)
    data = btl.data.arrays(pictures, rng.integers(0, 10, 256))
    plain = network.make(jax.random.key(0), num_classes=10)
    net = btl.nets.from_nnx(as_run_here(plain))
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=data.num_examples)
    work = Workload("MobileNet", net, data, BATCH, STEPS)
    inference = btl.infer.map_estimate(joint, optax.sgd(1e-3, momentum=0.9))
    ours = by_fit(work, inference, transform=btl.data.compose(AUGMENT, network.normalize))
    ready = network.normalize.apply(jnp.asarray(pictures[:BATCH])), data.targets[:BATCH]
    bare = bare_steps(net, *ready, STEPS)
    times = alternate(ours, bare, repeats)
    alone = bare_steps(btl.nets.from_nnx(plain), *ready, None)
    alone()
    seconds = float(np.median([alone() for _ in range(repeats)]))
    name = f"(i) MobileNet, {SIZE} pixels, batch {BATCH}: fit from bytes with augmentation / bare steps"
    row = show(name, times, 1.15)
    print(f"(i) the bare step with XLA's convolutions, compiled by itself: {seconds * 1e3:.0f} ms")
    return [{**row, "step_with_convolutions": seconds}]


def bare_steps(net: btl.Net, inputs: Any, labels: Any, steps: int | None) -> Callable[[], float]:
    """Seconds per step of SGD with momentum on one batch that is ready, in one loop or, without ``steps``, alone."""
    optimizer = optax.sgd(1e-3, momentum=0.9)

    def loss(params: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(net(params, inputs), labels).mean()

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    one = jax.jit(functools.partial(step, _=None))
    loop = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))

    def run() -> float:
        carry = (net.params, optimizer.init(net.params))
        began = time.perf_counter()
        jax.block_until_ready(one(carry) if steps is None else loop(carry))
        return (time.perf_counter() - began) / (steps or 1)

    return run


def forward(repeats: int) -> list[dict[str, Any]]:
    """(j) forward pass of a ResNet-50 against torch's, on the same cores and in float32."""
    pictures = np.random.default_rng(0).normal(size=(RESNET_BATCH, RESNET_SIZE, RESNET_SIZE, 3)).astype(np.float32)
    net = btl.nets.from_nnx(btl.pretrained.resnet50(jax.random.key(0)))
    inputs = jnp.asarray(pictures)
    run = jax.jit(lambda params, x: net(params, x))
    ours = timed(lambda: run(net.params, inputs))
    torch, torchvision = peer("torch"), peer("torchvision")
    if torch is None or torchvision is None:
        ours()
        seconds = float(np.median([ours() for _ in range(repeats)]))
        print(f"(j) ResNet-50, batch {RESNET_BATCH}: {seconds * 1e3:.0f} ms; torch and torchvision are not installed")
        return [{"name": "(j) ResNet-50 forward", "target": None, "a": seconds}]
    model = torchvision.models.resnet50(weights=None).eval()
    given = torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        times = alternate(ours, timed(lambda: model(given)), repeats)
    versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    return [{**show(f"(j) ResNet-50, batch {RESNET_BATCH}: forward / torch", times, None), "peer": versions}]


def decode(repeats: int) -> list[dict[str, Any]]:
    """(k) JPEG photographs per second, from the file to arrays of 96 x 96 pixels on the device."""
    directory = os.environ.get("BAYESTL_DATA_DIR")
    if directory is None or not (Path(directory) / PHOTOGRAPHS).is_file():
        print(f"(k) BAYESTL_DATA_DIR has no {PHOTOGRAPHS}: nothing to decode")
        return []
    with tempfile.TemporaryDirectory() as cache:
        records = btl.data.folder(Path(directory) / PHOTOGRAPHS, cache)
        read = functools.partial(example, SIZE)
        load = timed(lambda: btl.data.load(records, read).inputs)
        streamed = btl.data.stream(records, read)
        batches = len(records) // BATCH

        def drain() -> None:
            with streamed.open(jax.random.key(0), BATCH, batches) as window:
                times = window(0)
                jax.block_until_ready(times.gather(times.indices(jax.random.key(0), 0, batches, BATCH)[-1]).inputs)

        rates = {}
        for name, run, num in (("loaded", load, len(records)), ("streamed", timed(drain), batches * BATCH)):
            run()
            rates[f"{name}_per_second"] = num / float(np.median([run() for _ in range(repeats)]))
    print("(k) JPEG photographs to 96 x 96 on the device: " + ", ".join(f"{k} {v:.0f}" for k, v in rates.items()))
    return [{"name": "(k) JPEG photographs, decoded to the device", "target": None, **rates}]
