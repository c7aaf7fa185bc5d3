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
"""``(key, batch) -> batch``: augmentation inside the compiled step."""

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
    """Which steps a program runs: ``num`` steps from ``start`` on; or the single step number ``start + num``."""

    start: Any
    num: Any


class Recipe(NamedTuple):
    """The static part of a run's programs.

    Attributes:
        make_step: from what differs between runs of one program to the method's step.
        capacity: the most steps of a chunk.
        batch_size: examples per step.
        transform: the function applied to each batch, or None.
        placement: where batches and state lie on a mesh, or None.
    """

    make_step: Callable[[Any], Callable]
    capacity: int
    batch_size: int
    transform: Transform | None
    placement: MeshLayout | None = None


class Arguments(NamedTuple):
    """What the programs of one run take besides its state; the same at every step.

    Attributes:
        numbers: the argument of ``make_step``.
        keys: the streams of randomness.
        data: the data set, or a window of a stream.
    """

    numbers: Any
    keys: Keys
    data: Window


def rows_of_chunk(recipe: Recipe, arguments: Arguments, start: Any) -> jax.Array:
    """What the batches of the steps from ``start`` on are gathered from, with leading axis ``capacity``."""
    _, keys, data = arguments
    rows = data.indices(keys.order, start, recipe.capacity, recipe.batch_size)
    return rows if recipe.placement is None else recipe.placement.rows(rows)


def one_step(recipe: Recipe, arguments: Arguments, state: Any, rows: jax.Array, span: Span) -> tuple[Any, Any]:
    """Step number ``span.num`` of the chunk that begins at ``span.start``: the new state, and its infos."""
    placement = recipe.placement
    key_transform, key_step = jax.random.split(jax.random.fold_in(arguments.keys.steps, span.start + span.num))
    batch = arguments.data.gather(rows[span.num])
    batch = batch if placement is None else placement.split(batch)
    if recipe.transform is not None:
        batch = recipe.transform(key_transform, batch)
    new_state, info = recipe.make_step(arguments.numbers)(key_step, state, batch)
    return new_state if placement is None else placement.keep(new_state), info


def step_into(
    recipe: Recipe, arguments: Arguments, state_and_infos: Any, rows: jax.Array, span: Span
) -> tuple[Any, Any]:
    """:func:`one_step`, with its infos written to their row of ``infos``."""
    state, infos = state_and_infos
    new_state, info = one_step(recipe, arguments, state, rows, span)
    infos = jax.tree.map(lambda buffer, x: buffer.at[span.num].set(x), infos, info)
    return new_state, infos if recipe.placement is None else recipe.placement.report(infos)


def empty_infos(recipe: Recipe, arguments: Arguments, state: Any) -> Any:
    """Room for the infos of a chunk, leaves (capacity, ...)."""

    def info(arguments: Arguments, state: Any) -> Any:
        rows = rows_of_chunk(recipe, arguments, jnp.int32(0))
        return one_step(recipe, arguments, state, rows, Span(jnp.int32(0), jnp.int32(0)))[1]

    shapes = jax.eval_shape(info, arguments, state)
    infos = jax.tree.map(lambda x: jnp.zeros((recipe.capacity, *x.shape), x.dtype), shapes)
    return infos if recipe.placement is None else recipe.placement.report(infos)


def run_chunk(recipe: Recipe, arguments: Arguments, state: Any, span: Span) -> tuple[Any, Any]:
    """``span.num`` <= ``capacity`` steps of a method as one loop; the new state, and infos with ``capacity`` rows.

    The number of steps is not part of the program: a full chunk, the remainder at the end and the replay after a
    failure all run the same compiled code.
    """
    rows = rows_of_chunk(recipe, arguments, span.start)
    infos = empty_infos(recipe, arguments, state)

    def body(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        return step_into(recipe, arguments, carry, rows, Span(span.start, i))

    return jax.lax.fori_loop(0, span.num, body, (state, infos))


def as_seen(examples: Batch, transform: Transform | None) -> tuple[Any, Any]:
    """Inputs and targets as a step sees them, for checks: only their shapes if there is a transform, else values."""
    if transform is None:
        return examples.inputs, examples.targets
    transformed = jax.eval_shape(transform, jax.random.key(0), examples)
    if not isinstance(transformed, Batch):
        raise TypeError(
            f"transform returned a {type(transformed).__name__}; return a Batch, such as batch._replace(inputs=...)"
        )
    num = jax.tree.leaves(examples.inputs)[0].shape[0]
    shapes = [x.shape for x in jax.tree.leaves((transformed.inputs, transformed.targets))]
    if any(shape[:1] != (num,) for shape in shapes):
        raise ValueError(
            f"transform returned arrays of shapes {shapes} for {num} examples; keep one row for each of them"
        )
    same = jax.tree.structure(transformed.targets) == jax.tree.structure(examples.targets) and all(
        (a.shape, a.dtype) == (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(transformed.targets), jax.tree.leaves(examples.targets), strict=True)
    )
    return transformed.inputs, examples.targets if same else transformed.targets


def check_of_blocks(check: Any, data: Data, transform: Transform | None) -> Any:
    """What a stream checks the targets of every block by; None where data are held, of which all have been checked, and
    where a transform makes other targets of those that are read.

    Args:
        check: what ``Inference.check`` gave.
        data: what is passed over.
        transform: of a batch, or None.
    """
    if check is None or data.resident() is not None:
        return None
    if transform is None:
        return check
    same: list[bool] = []

    def compare(key: Key, batch: Batch) -> None:
        before, after = jax.tree.leaves(batch.targets), jax.tree.leaves(transform(key, batch).targets)
        same.append(len(before) == len(after) and all(x is y for x, y in zip(before, after, strict=True)))

    jax.eval_shape(compare, jax.random.key(0), data.first(1))
    return check if same[0] else None


def all_finite(tree: Any) -> jax.Array:
    """Whether every floating-point number in a pytree is finite, a scalar.

    Rings are not checked: the latest entry is elsewhere in the state too, and all earlier ones were finite.
    """
    leaves = [x for x in jax.tree.leaves(tree, is_leaf=is_ring) if not is_ring(x)]
    checks = [jnp.all(jnp.isfinite(x)) for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack(checks)) if checks else jnp.array(True)


def check_run(
    data: Data, steps: int | None, batch_size: int | None, chunk_size: int, epochs: int | None = None
) -> tuple[int, int, int]:
    """The number of steps, the batch size and the chunk size of a run, checked."""
    if (steps is None) == (epochs is None):
        raise ValueError(f"steps is {steps} and epochs is {epochs}; give exactly one of them, the length of the run")
    batch_size = min(DEFAULT_BATCH_SIZE, data.num_examples) if batch_size is None else batch_size
    data.check_batch_size(batch_size)
    if epochs is not None:
        if not isinstance(epochs, numbers.Integral) or epochs < 1:
            raise ValueError(f"epochs is {epochs!r}; give a whole number of passes over the data, at least 1")
        steps = int(epochs) * steps_per_epoch(data, batch_size)
    if not isinstance(steps, numbers.Integral) or steps < 1:
        raise ValueError(f"steps is {steps!r}; give a whole number of training steps, at least 1")
    if not isinstance(chunk_size, numbers.Integral) or chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size!r}; give a whole number of steps between reports, at least 1")
    return int(steps), batch_size, min(int(chunk_size), int(steps), data.max_steps(batch_size) or steps)


def steps_per_epoch(data: Data, batch_size: int) -> int:
    """ceil(N / B): the last batch of an epoch is filled up."""
    return -(-data.num_examples // batch_size)
