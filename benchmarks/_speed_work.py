"""Workloads of ``benchmarks.speed``, and how two programs are timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl

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
