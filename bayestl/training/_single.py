"""The compiled programs of one run: a chunk of steps as a loop, or each step dispatched by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.stages import Compiled

from bayestl._dispatch import loops_on_host
from bayestl._placement import check_sharding, layout_of, place_alike, replicate
from bayestl._static import Static, partition
from bayestl._types import Key, Params
from bayestl.training._loop import (
    Arguments,
    Keys,
    Recipe,
    Span,
    Transform,
    all_finite,
    empty_infos,
    rows_of_chunk,
    run_chunk,
    step_into,
)
from bayestl.training._programs import WithConstants, compiled, program, trace


class Combined(NamedTuple):
    """A method's step, from its arrays."""

    static: Static

    def __call__(self, arrays: list[Any]) -> Callable:
        return self.static.combine(arrays)


class Prepared(NamedTuple):
    """A run before its first step.

    Attributes:
        recipe: the static part of its programs.
        numbers: the arrays of its step.
        keys: the streams of randomness.
        state: the start.
    """

    recipe: Recipe
    numbers: list[Any]
    keys: Keys
    state: Any


def prepare(
    init: Callable[[Key, Params], Any],
    step: Callable,
    keys: Keys,
    params: Params,
    sharding: NamedSharding | None,
    capacity: int,
    batch_size: int,
    transform: Transform | None,
) -> Prepared:
    """A run from its method; on the mesh of ``sharding``, where one is given."""
    state, placement = init(keys.init, params), None
    if sharding is not None:
        check_sharding(sharding, batch_size)
        mesh = sharding.mesh
        params, keys = replicate(params, mesh), replicate(keys, mesh)
        state, step = place_alike(state, params, mesh), place_alike(step, params, mesh)
        placement = layout_of(sharding, state)
    numbers, static = partition(step)
    return Prepared(Recipe(Combined(static), capacity, batch_size, transform, placement), numbers, keys, state)


class Chunks:
    """A run's chunks, compiled at construction.

    Args:
        prepared: the run.
        data: its data set, or the first window of a stream; shapes will do.

    Attributes:
        main: the program that holds the step.
    """

    main: Compiled | WithConstants

    def __init__(self, prepared: Prepared, data: Any):
        self._recipe, self._numbers, self._keys, state = prepared
        arguments, span = self._arguments(data), Span(np.int32(0), np.int32(0))
        whole = trace(looped, self._recipe, arguments, state, span)
        self._by_step = loops_on_host(whole.jaxpr)
        if self._by_step:
            self._rows = program(rows_of_chunk, self._recipe, arguments, span.start)
            self._empty = program(empty_infos, self._recipe, arguments, state)
            self._finite = program(finite, None, state)
            inputs = jax.tree.leaves((arguments, state))
            if any(isinstance(x, jax.ShapeDtypeStruct) for x in inputs):
                room = jax.eval_shape(partial(empty_infos, self._recipe), arguments, state)
                rows = jax.eval_shape(partial(rows_of_chunk, self._recipe), arguments, span.start)
            else:
                room, rows = self._empty(arguments, state), self._rows(arguments, span.start)
            self.main = program(step_into, self._recipe, arguments, (state, room), rows, span, donate=(1,))
        else:
            self.main = compiled(whole, arguments, state, span)

    def _arguments(self, data: Any) -> Arguments:
        return Arguments(self._numbers, self._keys, data)

    def __call__(self, data: Any, state: Any, start: int, num: int) -> tuple[Any, Any, jax.Array]:
        """``num`` steps from ``start`` on: the new state, infos with ``capacity`` rows, whether the state is finite."""
        arguments = self._arguments(data)
        if not self._by_step:
            return self.main(arguments, state, Span(np.int32(start), np.int32(num)))
        rows = self._rows(arguments, np.int32(start))
        # The steps overwrite their state in place, but the caller still holds the one that it gave.
        now = (jax.tree.map(jax.numpy.copy, state), self._empty(arguments, state))
        for i in range(num):
            now = self.main(arguments, now, rows, Span(np.int32(start), np.int32(i)))
        state, infos = now
        return state, infos, self._finite(state)


def looped(recipe: Recipe, arguments: Arguments, state: Any, span: Span) -> tuple[Any, Any, jax.Array]:
    """A chunk as one program, and whether the resulting state is finite."""
    state, infos = run_chunk(recipe, arguments, state, span)
    return state, infos, all_finite(state)


def finite(_: None, state: Any) -> jax.Array:
    return all_finite(state)
