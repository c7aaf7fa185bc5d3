"""What the training loop costs beside a Python loop over a compiled step, for ``benchmarks.speed``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
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
    conv_net,
    full_conv_net,
    low_rank_prior,
    map_under,
    mlp,
    show,
)

# Enough for the seconds of a run to be those of its steps.
STEPS = {"MLP": 400, "ConvNet": 100}
MEMBER_STEPS = 20


def rows(repeats: int) -> list[dict[str, Any]]:
    """(p) fit against a Python loop over a jitted step, (q) many ConvNets against as many loops."""
    compared = []
    for work in (mlp(), conv_net()):
        work = work._replace(steps=STEPS[work.name])
        ours, theirs = by_fit(work, map_under(work, None)), by_python(work)
        compared.append(show(f"(p) {work.name}: fit / a Python loop", alternate(ours, theirs, repeats), 1.10))
    work = conv_net()._replace(steps=MEMBER_STEPS)
    times = alternate(by_fit_many(work), by_python(work, MEMBERS), repeats)
    return [*compared, show(f"(q) ConvNet: fit_many of {MEMBERS} / as many Python loops", times, 1.10)]


def full_size(repeats: int) -> list[dict[str, Any]]:
    """(p) for the ConvNet at full size, and (b): what a low-rank prior adds to its steps."""
    work = full_conv_net()
    plain, informed = (by_fit(work, map_under(work, prior)) for prior in (None, low_rank_prior(work.net)))
    times = alternate(plain, by_python(work), repeats)
    name = f"(b) {work.name}: fit with low-rank prior, k = 5 / fit without"
    return [
        show(f"(p) {work.name}: fit / a Python loop", times, 1.10),
        show(name, alternate(informed, plain, repeats), 1.10),
    ]


def by_python(work: Workload, num: int = 1) -> Callable[[], float]:
    """Seconds per step of ``num`` plain loops in a row: a step is one program, its state overwritten in place."""
    optimizer = optax.sgd(RATE, momentum=MOMENTUM)
    size = work.data.num_examples

    def loss(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        logits = work.net.apply(params, (), inputs, None)[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @partial(jax.jit, donate_argnums=(0,))
    def step(carry: Any, inputs: jax.Array, labels: jax.Array, rows: jax.Array) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, inputs[rows], labels[rows])
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    def one(seed: int) -> None:
        rng, params = np.random.default_rng(seed), jax.tree.map(jnp.copy, work.net.params)
        carry, losses = (params, optimizer.init(params)), []
        epochs = -(-work.steps * work.batch_size // size)
        order = np.concatenate([rng.permutation(size) for _ in range(epochs)]).astype(np.int32)
        for rows in order[: work.steps * work.batch_size].reshape(work.steps, -1):
            carry, value = step(carry, work.data.inputs, work.data.targets, rows)
            losses.append(value)
        np.asarray(jnp.stack(losses))
        jax.block_until_ready(carry)

    def run() -> float:
        began = time.perf_counter()
        for seed in range(num):
            one(seed)
        return (time.perf_counter() - began) / work.steps

    return run


def by_fit_many(work: Workload) -> Callable[[], float]:
    """Seconds per step of all members by ``btl.fit_many``."""
    joint = btl.LogJoint(work.net, btl.likelihoods.categorical(), None, num_data=work.data.num_examples)
    optimizer, keys = optax.sgd(RATE, momentum=MOMENTUM), jax.random.split(jax.random.key(0), MEMBERS)
    options = {"steps": work.steps, "batch_size": work.batch_size, "progress": False}

    def make(_: Any) -> btl.Inference:
        return btl.infer.map_estimate(joint, optimizer)

    return lambda: btl.fit_many(keys, make, None, work.net.params, work.data, **options).seconds / work.steps
