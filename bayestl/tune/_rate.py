"""A learning rate from the network's own curvature."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree, likelihoods
from bayestl._log_joint import LogJoint
from bayestl._static import Static
from bayestl._types import Batch, Key, Params

# Products with the curvature that bring a random direction near enough to the steepest one.
_ITERATIONS = 12
# Random directions whose mean curvature says the trace.
_PROBES = 4


def safe_rate(key: Key, joint: LogJoint, params: Params, batch: Batch, per_trace: float | None = None) -> jax.Array:
    """One over the largest curvature of the mean log likelihood, by power iteration with the GGN; under ``jit`` too.

    Where a classifier is sure of itself its curvature is small, and grows as soon as it doubts. So the Hessian at
    outputs of 0 is added, where a softmax is undecided.

    Args:
        key: of the directions.
        joint: network and likelihood.
        params: where.
        batch: of all examples, or some of them.
        per_trace: the rate times the trace of the curvature is at most this; None for no such bound. See
            :func:`noise_bound`.
    """
    product = _product(joint, params, batch)
    _, norms = jax.lax.scan(lambda v, _: _scaled(product(v)), _start(key, params), None, length=_ITERATIONS)
    if per_trace is None:
        return _one_over(norms[-1], batch)
    directions = jax.vmap(lambda k: _start(k, params))(jax.random.split(key, _PROBES))
    bends = jax.lax.map(lambda v: _tree.vdot(v, product(v)), directions)
    return _bounded(norms[-1], bends, params, batch, per_trace)


def dispatched_safe_rate(
    static: Static,
    arrays: list[Any],
    key: Key,
    likelihood: Any,
    params: Params,
    batch: Batch,
    per_trace: float | None = None,
) -> jax.Array:
    """The same for a log joint in two parts, with another likelihood, and with one dispatch per product."""
    v, norm = _start(key, params), jnp.zeros(())
    for _ in range(_ITERATIONS):
        v, norm, _ = _iterated(static, arrays, likelihood, params, v, batch)
    if per_trace is None:
        return _one_over(norm, batch)
    bends = [
        _iterated(static, arrays, likelihood, params, _start(k, params), batch)[2]
        for k in jax.random.split(key, _PROBES)
    ]
    return _bounded(norm, jnp.stack(bends), params, batch, per_trace)


def noise_bound(num_examples: int, batch_size: int, momentum: float) -> float | None:
    """``per_trace`` for steps of batches, which are noisier the more directions bend; None where a batch is everything.

    On a quadratic the noise of batches of B examples adds about ``rate tr(H) / (2 B (1 - momentum))`` to what a step
    leaves of the squared distance, times ``(N - B) / (N - 1)`` for draws without replacement. This is half of what
    makes that 1.
    """
    if batch_size >= num_examples:
        return None
    return (1 - momentum) * batch_size * (num_examples - 1) / (num_examples - batch_size)


@partial(jax.jit, static_argnums=0)
def _iterated(static: Static, arrays: list[Any], likelihood: Any, params: Params, v: Params, batch: Batch) -> Any:
    """The product as a vector of length 1, how long it was, and the curvature along v."""
    joint: Any = static.combine(arrays)
    along = _product(joint.replace(likelihood=likelihood), params, batch)(v)
    return *_scaled(along), _tree.vdot(v, along)


def _product(joint: LogJoint, params: Params, batch: Batch) -> Callable[[Params], Params]:
    """The product with the sum of both curvatures over the examples."""

    def outputs_at(params: Params) -> Any:
        return _tree.at_least_float32(joint.outputs(params, batch.inputs)[0])

    outputs, forward = jax.linearize(outputs_at, params)
    backward = jax.linear_transpose(forward, params)
    roots = [
        likelihoods.hessian_root(joint.likelihood, at, batch.targets)
        for at in (outputs, jax.tree.map(jnp.zeros_like, outputs))
    ]

    def product(v: Params) -> Params:
        moved = forward(v)
        return backward(jax.tree.map(jnp.add, *[through(root, moved) for root in roots]))[0]

    return product


def _start(key: Key, params: Params) -> Params:
    return _scaled(_tree.normal_like(key, params))[0]


def _scaled(w: Params) -> tuple[Params, jax.Array]:
    """A vector of length 1, and how long it was."""
    norm = jnp.sqrt(_tree.squared_norm(w))
    return jax.tree.map(lambda x: x / jnp.maximum(norm, 1e-30).astype(x.dtype), w), norm


def _one_over(curvature: jax.Array, batch: Batch) -> jax.Array:
    return len(jax.tree.leaves(batch.inputs)[0]) / jnp.maximum(curvature, 1e-30)


def _bounded(largest: jax.Array, bends: jax.Array, params: Params, batch: Batch, per_trace: float) -> jax.Array:
    """One over the largest curvature, and at most ``per_trace`` over the trace that curvatures along probes say."""
    # Few probes may miss the steepest direction, which is part of the trace.
    trace = jnp.maximum(_tree.size(params) * jnp.mean(bends), largest)
    return jnp.minimum(_one_over(largest, batch), per_trace * _one_over(trace, batch))


def through(root: Any, moved: Any) -> Any:
    """``L L^T t`` for every example, leaves (B, ...)."""
    along = _tree.total(
        jnp.sum(s * t, axis=tuple(range(2, s.ndim)))
        for s, t in zip(jax.tree.leaves(root), jax.tree.leaves(moved), strict=True)
    )
    return jax.tree.map(lambda s: jnp.sum(along.reshape(*along.shape, *[1] * (s.ndim - 2)) * s, 0), root)
