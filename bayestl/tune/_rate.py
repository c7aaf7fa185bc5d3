"""A learning rate from the network's own curvature."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree, likelihoods
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, Params

# Products with the curvature that bring a random direction near enough to the steepest one.
_ITERATIONS = 12


def safe_rate(key: Key, joint: LogJoint, params: Params, batch: Batch) -> jax.Array:
    """One over the largest curvature of the mean log likelihood, by power iteration with the GGN; under ``jit`` too.

    Where a classifier is sure of itself its curvature is small, and grows as soon as it doubts. So the Hessian at
    outputs of 0 is added, where a softmax is undecided.
    """

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
        return backward(jax.tree.map(jnp.add, *[_through(root, moved) for root in roots]))[0]

    def iterate(v: Params, _: None) -> tuple[Params, jax.Array]:
        w = product(v)
        norm = jnp.sqrt(_tree.squared_norm(w))
        return jax.tree.map(lambda x: x / jnp.maximum(norm, 1e-30).astype(x.dtype), w), norm

    v = _tree.normal_like(key, params)
    v = jax.tree.map(lambda x: x / jnp.sqrt(_tree.squared_norm(v)).astype(x.dtype), v)
    _, norms = jax.lax.scan(iterate, v, None, length=_ITERATIONS)
    return len(jax.tree.leaves(batch.inputs)[0]) / jnp.maximum(norms[-1], 1e-30)


def _through(root: Any, moved: Any) -> Any:
    """``L L^T t`` for every example, leaves (B, ...)."""
    along = _tree.total(
        jnp.sum(s * t, axis=tuple(range(2, s.ndim)))
        for s, t in zip(jax.tree.leaves(root), jax.tree.leaves(moved), strict=True)
    )
    return jax.tree.map(lambda s: jnp.sum(along.reshape(*along.shape, *[1] * (s.ndim - 2)) * s, 0), root)
