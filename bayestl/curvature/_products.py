"""Products with a curvature, and square roots of it, from Jacobian-vector products of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Inputs, Key, Outputs, Params
from bayestl.curvature._kinds import Kind
from bayestl.passes import Batches


def outputs_of(joint: LogJoint, inputs: Inputs) -> Callable[[Params], Any]:
    """Raw outputs of the deterministic network as a function of the parameters, in at least float32."""
    return lambda params: _tree.at_least_float32(joint.outputs(params, inputs)[0])


def weighted_columns(joint: LogJoint, kind: Kind, key: Key, outputs: Outputs, batch: Batch) -> Any:
    """The columns of ``kind`` for a batch, leaves (K, B, ...), times the root of each example's weight; their outer
    products then count each example by its weight."""
    columns = kind(key, joint.likelihood, outputs, batch.targets)

    if batch.weights is None:
        return columns
    roots = jnp.sqrt(jnp.asarray(batch.weights))
    return jax.tree.map(lambda s: s * roots.astype(s.dtype).reshape(1, -1, *[1] * (s.ndim - 2)), columns)


def product(
    joint: LogJoint, kind: Kind, params: Params, key: Key, batches: Batches, max_bytes: int
) -> Callable[[Params], Params]:
    """The function ``v -> H v``, ``H v = sum_n sum_j J_n^T s_nj (s_nj^T J_n v)``, one batch at a time.

    A product takes three passes through the network. They have the linearised network of every batch in common; if it
    fits into ``max_bytes``, it is computed once. For a last layer it consists of its features.

    Args:
        joint: its network and likelihood.
        kind: which curvature.
        params: the parameters at which to take it.
        key: for sampled labels.
        batches: the data, from :func:`batches`.
        max_bytes: how much memory may be used from one product to the next; 0 for none.
    """

    def linearised(batch: Batch) -> tuple[Any, Callable]:
        return jax.linearize(outputs_of(joint, batch.inputs), params)

    def one(key: Key, batch: Batch, stored: tuple[tuple[Any, Callable], Any], v: Params) -> Params:
        (outputs, jacobian), targets = stored
        batch = Batch(None, targets, batch.weights)
        columns = weighted_columns(joint, kind, key, outputs, batch)
        return jax.linear_transpose(jacobian, v)(_through_columns(columns, jacobian(v)))[0]

    def to_store(key: Key, batch: Batch) -> tuple[tuple[Any, Callable], Any]:
        # Targets are stored too; otherwise data that are not in memory would have to be read again.
        return linearised(batch), batch.targets

    held = jax.eval_shape(lambda: batches.map(key, lambda key, batch: linearised(batch)))
    if sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(held)) > max_bytes:
        return lambda v: batches.sum(key, lambda key, batch: one(key, batch, to_store(key, batch), v))
    stored = batches.map(key, to_store)
    return lambda v: batches.sum(key, lambda key, batch, stored: one(key, batch, stored, v), stored)


def _through_columns(columns: Any, tangent: Any) -> Any:
    """``sum_j s_nj (s_nj^T t_n)`` for every example, leaves (B, ...)."""
    along = _tree.total(
        jnp.sum(s * t, axis=tuple(range(2, s.ndim)))
        for s, t in zip(jax.tree.leaves(columns), jax.tree.leaves(tangent), strict=True)
    )
    return jax.tree.map(lambda s: jnp.sum(along.reshape(*along.shape, *[1] * (s.ndim - 2)) * s, 0), columns)


def square_root(joint: LogJoint, kind: Kind, params: Params, key: Key, batch: Batch) -> Params:
    """The rows ``J_n^T s_nj`` of one batch, leaves (B K, *shape), example after example: ``H = sum r r^T``."""
    outputs = outputs_of(joint, batch.inputs)(params)
    columns = weighted_columns(joint, kind, key, outputs, batch)

    def one(inputs: Inputs, columns: Any) -> Params:
        def network(params: Params) -> Any:
            outputs = outputs_of(joint, jax.tree.map(lambda x: x[None], inputs))(params)
            return jax.tree.map(lambda f: f[0], outputs)

        pull_back = jax.vjp(network, params)[1]
        return jax.vmap(lambda s: pull_back(s)[0])(columns)

    rows = jax.vmap(one, in_axes=(0, 1))(batch.inputs, columns)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)


def num_columns(joint: LogJoint, kind: Kind, params: Params, batches: Batches) -> int:
    """K, how many columns a kind has for one example."""

    def columns(params: Params) -> Any:
        batch = batches.get(0)
        return kind(jax.random.key(0), joint.likelihood, outputs_of(joint, batch.inputs)(params), batch.targets)

    return jax.tree.leaves(jax.eval_shape(columns, params))[0].shape[0]
