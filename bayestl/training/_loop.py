"""The compiled part of training: a chunk of steps as one program, for one run and for many at once."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl._placement import MeshLayout
from bayestl._types import Batch, Data, Key, Window
from bayestl.training._ring import is_ring

Transform = Callable[[Key, Batch], Batch]

DEFAULT_BATCH_SIZE = 64


class Keys(NamedTuple):
    """The streams of randomness of one run.

    Attributes:
        init: for the method's start.
        order: for the order of the data.
        steps: folded with the step for everything inside it.
    """

    init: Key
    order: Key
    steps: Key


def split_key(key: Key) -> Keys:
    """One run's streams from its key."""
    return Keys(*jax.random.split(key, 3))


class Span(NamedTuple):
    """Which steps a program runs: from ``start``, ``num`` of them, both of which may be traced."""

    start: Any
    num: Any


def run_steps(
    step: Callable,
    state: Any,
    data: Window,
    keys: Keys,
    span: Span,
    *,
    capacity: int,
    batch_size: int,
    transform: Transform | None,
    layout: MeshLayout | None = None,
) -> tuple[Any, Any]:
    """``span.num`` <= ``capacity`` steps of a method; the new state, and infos with a leading axis ``capacity``.

    The number of steps is not part of the program: a full chunk, the remainder at the end and the replay after a
    failure run the same compiled code. A ``layout`` keeps batches and state on a mesh as they were placed.
    """
    rows = data.indices(keys.order, span.start, capacity, batch_size)
    rows = rows if layout is None else layout.rows(rows)

    def one(i: jax.Array, state: Any) -> tuple[Any, Any]:
        key_transform, key_step = jax.random.split(jax.random.fold_in(keys.steps, span.start + i))
        batch = data.gather(rows[i])
        batch = batch if layout is None else layout.split(batch)
        if transform is not None:
            batch = transform(key_transform, batch)
        return step(key_step, state, batch)

    info_shapes = jax.eval_shape(one, jnp.zeros((), jnp.int32), state)[1]
    infos = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), info_shapes)

    def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, infos = carry
        new_state, info = one(i, state)
        new_state = new_state if layout is None else layout.keep(new_state)
        return new_state, jax.tree.map(lambda buffer, x: buffer.at[i].set(x), infos, info)

    state, infos = jax.lax.fori_loop(0, span.num, body, (state, infos))
    return state, infos if layout is None else layout.report(infos)


def as_seen(examples: Batch, transform: Transform | None) -> tuple[Any, Any]:
    """Inputs and targets as a step sees them, for a check: shapes where a transform changes them, else values."""
    if transform is None:
        return examples.inputs, examples.targets
    seen = jax.eval_shape(transform, jax.random.key(0), examples)
    same = jax.tree.structure(seen.targets) == jax.tree.structure(examples.targets) and all(
        (a.shape, a.dtype) == (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(seen.targets), jax.tree.leaves(examples.targets), strict=True)
    )
    return seen.inputs, examples.targets if same else seen.targets


def all_finite(tree: Any) -> jax.Array:
    """Whether every floating-point number in a pytree is finite, a scalar.

    Rings are not looked at: what was added last is elsewhere in the state too, and what was added before was finite.
    """
    leaves = [x for x in jax.tree.leaves(tree, is_leaf=is_ring) if not is_ring(x)]
    checks = [jnp.all(jnp.isfinite(x)) for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack(checks)) if checks else jnp.array(True)


def check_run(data: Data, steps: int, batch_size: int | None, chunk_size: int) -> tuple[int, int]:
    """The batch size and the chunk size of a run, checked."""
    if not isinstance(steps, numbers.Integral) or steps < 1:
        raise ValueError(f"steps is {steps!r}; give a whole number of training steps, at least 1")
    if not isinstance(chunk_size, numbers.Integral) or chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size!r}; give a whole number of steps between reports, at least 1")
    batch_size = min(DEFAULT_BATCH_SIZE, data.num_examples) if batch_size is None else batch_size
    data.check_batch_size(batch_size)
    return batch_size, min(int(chunk_size), int(steps), data.max_steps(batch_size) or steps)
