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


def safe_rate(key: Key, joint: LogJoint, params: Params, batch: Batch) -> jax.Array:
    """One over the largest curvature of the mean log likelihood, by power iteration with the GGN; under ``jit`` too.

    Where a classifier is sure of itself its curvature is small, and grows as soon as it doubts. So the Hessian at
    outputs of 0 is added, where a softmax is undecided.
    """
    product = _product(joint, params, batch)
    _, norms = jax.lax.scan(lambda v, _: _scaled(product(v)), _start(key, params), None, length=_ITERATIONS)
    return _one_over(norms[-1], batch)


def dispatched_safe_rate(
    static: Static, arrays: list[Any], key: Key, likelihood: Any, params: Params, batch: Batch
) -> jax.Array:
    """The same for a log joint in two parts, with another likelihood, and with one dispatch per product."""
    v, norm = _start(key, params), jnp.zeros(())
    for _ in range(_ITERATIONS):
        v, norm = _iterated(static, arrays, likelihood, params, v, batch)
    return _one_over(norm, batch)


@partial(jax.jit, static_argnums=0)
def _iterated(static: Static, arrays: list[Any], likelihood: Any, params: Params, v: Params, batch: Batch) -> Any:
    joint: Any = static.combine(arrays)
    return _scaled(_product(joint.replace(likelihood=likelihood), params, batch)(v))


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


def through(root: Any, moved: Any) -> Any:
    """``L L^T t`` for every example, leaves (B, ...)."""
    along = _tree.total(
        jnp.sum(s * t, axis=tuple(range(2, s.ndim)))
        for s, t in zip(jax.tree.leaves(root), jax.tree.leaves(moved), strict=True)
    )
    return jax.tree.map(lambda s: jnp.sum(along.reshape(*along.shape, *[1] * (s.ndim - 2)) * s, 0), root)
