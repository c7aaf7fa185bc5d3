"""The compiled programs of many runs: members side by side or one after another, over devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bayestl._arguments import check_arguments
from bayestl._data_size import sized
from bayestl._dispatch import loops_on_host
from bayestl._placement import put
from bayestl._types import Batch, Inference, Key, Params
from bayestl.training._loop import (
    Arguments,
    Recipe,
    Span,
    all_finite,
    empty_infos,
    rows_of_chunk,
    run_chunk,
    split_key,
    step_into,
)
from bayestl.training._programs import compiled, program, trace
from bayestl.training._ring import if_else

Vectorize = Callable[[Callable], Callable]
"""From a function of one member to a function of all, like ``jax.vmap``."""

CACHE_BYTES = 4 * 2**20
"""How large the states of members side by side may be to stay in a CPU's cache; if larger, they run one by one."""


def sequentially(member: Callable) -> Callable:
    """Runs members one after another, where ``jax.vmap`` runs them side by side; for :func:`fit_many`."""
    check_arguments(sequentially, locals())
    return lambda *args: jax.lax.map(lambda xs: member(*xs), args)


class Members(NamedTuple):
    """What differs between members; every leaf has a leading axis M. None for what they share."""

    settings: Any
    keys: Any
    params: Params
    data: Any


class Carry(NamedTuple):
    """A member during the run.

    Attributes:
        state: the method's state.
        failed: the step that was not finite, at which the member was frozen; or -1.
        count: steps taken.
    """

    state: Any
    failed: jax.Array
    count: jax.Array


class Sized(NamedTuple):
    """Setting -> the member's method, whose log joint has N of the data where it was given none."""

    make_inference: Callable[[Any], Inference]
    num_data: int

    def __call__(self, setting: Any) -> Inference:
        return sized(self.make_inference(setting), self.num_data)


class Guarded(NamedTuple):
    """A member's step, which is undone if it leads to something that is not finite."""

    make_inference: Callable[[Any], Inference]

    def __call__(self, settings: Any) -> Callable:
        step = self.make_inference(settings).step

        def guarded(key: Key, carry: Carry, batch: Batch) -> tuple[Carry, Any]:
            new_state, info = step(key, carry.state, batch)
            good = (carry.failed < 0) & jnp.isfinite(info.objective) & all_finite(new_state)
            state, count = if_else(good, new_state, carry.state), carry.count + 1
            failed = jnp.where((carry.failed < 0) & ~good, count, carry.failed)
            return Carry(state, failed, count), info

        return guarded


class Spread(NamedTuple):
    """How members share the devices: each device has its part of the members, in order, and maps over them.

    Attributes:
        devices: the devices over which members are spread.
        vectorize: how to map over the members of one device; None if a device has only one.
    """

    devices: tuple[Any, ...]
    vectorize: Vectorize | None

    @property
    def mesh(self) -> Mesh:
        """The devices as a mesh."""
        return Mesh(np.array(self.devices), ("members",))

    def over(self, function: Callable, sharded: tuple, shared: tuple) -> Any:
        """``function(*one member's, *shared)`` for all members."""

        def local(sharded: tuple, shared: tuple) -> Any:
            if self.vectorize is None:
                one = function(*jax.tree.map(lambda x: x[0], sharded), *shared)
                return jax.tree.map(lambda x: x[None], one)
            return self.vectorize(lambda *xs: function(*xs, *shared))(*sharded)

        if len(self.devices) == 1:
            return local(sharded, shared)
        over = PartitionSpec("members")
        mapped = jax.shard_map(local, mesh=self.mesh, in_specs=(over, PartitionSpec()), out_specs=over, check_vma=False)
        return mapped(sharded, shared)

    def place(self, tree: Any, shared: bool = False) -> Any:
        """Arrays with a leading member axis, or shared ones, placed where the programs expect them."""
        if len(self.devices) == 1:
            return tree if tree is None else jax.device_put(tree, self.devices[0])
        sharding = NamedSharding(self.mesh, PartitionSpec() if shared else PartitionSpec("members"))
        return jax.tree.map(lambda x: put(x, sharding), tree)


class Plural(NamedTuple):
    """The static part of the programs."""

    spread: Spread
    recipe: Recipe

    def over(self, function: Callable, members: Members, shared: Any, *rest: Any, span: Any) -> Any:
        """``function(recipe, arguments, *rest of one member, span)`` for all members."""

        def member(mine: Members, *others: Any) -> Any:
            *own, shared, span = others
            data = shared if mine.data is None else mine.data
            arguments = Arguments(mine.settings, split_key(mine.keys), data)
            return function(self.recipe, arguments, *own, *span)

        return self.spread.over(member, (members, *rest), (shared, span))


def start(static: tuple[Spread, Callable[[Any], Inference]], members: Members, params: Params) -> Carry:
    """Every member at its start."""
    spread, make_inference = static

    def member(mine: Members, params: Params) -> Carry:
        params = params if mine.params is None else mine.params
        state = make_inference(mine.settings).init(split_key(mine.keys).init, params)
        return Carry(state, jnp.int32(-1), jnp.int32(0))

    return spread.over(member, (members,), (params,))


def posteriors(make_inference: Callable[[Any], Inference], settings: Any, state: Any) -> Any:
    """Every member's posterior."""
    return jax.vmap(lambda setting, mine: make_inference(setting).posterior(mine))(settings, state)


def _chunk(plural: Plural, members: Members, shared: Any, carry: Carry, span: Span) -> Any:
    return plural.over(run_chunk, members, shared, carry, span=(span,))


def _rows(plural: Plural, members: Members, shared: Any, start: Any) -> Any:
    return plural.over(rows_of_chunk, members, shared, span=(start,))


def _infos(plural: Plural, members: Members, shared: Any, carry: Carry) -> Any:
    return plural.over(empty_infos, members, shared, carry, span=())


def _step(plural: Plural, members: Members, shared: Any, carry_and_infos: Any, rows: Any, span: Span) -> Any:
    return plural.over(step_into, members, shared, carry_and_infos, rows, span=(span,))


def _turn(spread: Spread, tree: Any, number: Any) -> Any:
    """The members whose turn it is, one per device."""

    def local(x: jax.Array, number: Any) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, number, 1)

    return _on_parts(spread, lambda tree, number: jax.tree.map(lambda x: local(x, number), tree), (tree,), (number,))


def _all_turns(spread: Spread, trees: list[Any]) -> Any:
    """Members back in their places."""
    return _on_parts(spread, lambda *trees: jax.tree.map(lambda *xs: jnp.concatenate(xs), *trees), tuple(trees), ())


def _on_parts(spread: Spread, function: Callable, sharded: tuple, shared: tuple) -> Any:
    """``function`` of each device's part of the members."""
    # Written as a map that keeps the members of a device together.
    return Spread(spread.devices, lambda f: f).over(function, sharded, shared)


class MemberChunks:
    """Chunks of steps of all members, compiled at construction.

    On CPUs members run one after another, each for a whole chunk, if they would be slow side by side: networks with
    convolutions, whose kernels would then differ between members, and states that would not fit into the cache.

    Args:
        recipe: that of one member's programs.
        vectorize: how members share a device; None to choose automatically.
        devices: the devices over which members are spread.
        members: what differs, placed on the devices.
        shared: the data that all share, or the first window of a stream; None if they share none.
        carry: the start.
    """

    def __init__(
        self,
        recipe: Recipe,
        vectorize: Vectorize | None,
        devices: tuple[Any, ...],
        members: Members,
        shared: Any,
        carry: Carry,
    ):
        self._together = Spread(devices, None)
        num_turns = carry.failed.shape[0] // len(devices)
        span = Span(np.int32(0), np.int32(0))
        on_cpu = devices[0].platform == "cpu"
        size = sum(x.nbytes for x in jax.tree.leaves(carry)) / len(devices)
        in_turn = on_cpu and (vectorize is sequentially or (vectorize is None and size > CACHE_BYTES))
        plural = Plural(Spread(devices, vectorize or jax.vmap), recipe)
        whole = None if in_turn else trace(_chunk, plural, members, shared, carry, span)
        self._by_step = whole is not None and loops_on_host(whole.jaxpr, devices[0].platform)
        in_turn = in_turn or (self._by_step and vectorize is None)
        self._members = [members]
        if in_turn:
            plural = Plural(Spread(devices, None), recipe)
            self._take = program(_turn, self._together, carry, np.int32(0))
            take_members = program(_turn, self._together, members, np.int32(0))
            self._members = [take_members(members, np.int32(number)) for number in range(num_turns)]
            members, carry = self._members[0], self._take(carry, np.int32(0))
            whole = trace(_chunk, plural, members, shared, carry, span)
            self._by_step = loops_on_host(whole.jaxpr, devices[0].platform)
        self._in_turn = in_turn
        if self._by_step:
            self._rows = program(_rows, plural, members, shared, span.start)
            self._empty = program(_infos, plural, members, shared, carry)
            rows, room = self._rows(members, shared, span.start), self._empty(members, shared, carry)
            self._step = program(_step, plural, members, shared, (carry, room), rows, span, donate=(2,))
        else:
            assert whole is not None
            self._whole = compiled(whole, members, shared, carry, span)
        if in_turn:
            turn = self._run(members, shared, carry, 0, 0)
            self._join = program(_all_turns, self._together, [turn] * num_turns)

    def __call__(self, shared: Any, carry: Carry, start: int, num: int) -> tuple[Carry, Any]:
        """``num`` steps of all members from ``start`` on, and infos (M, capacity, ...)."""
        if not self._in_turn:
            return self._run(self._members[0], shared, carry, start, num)
        turns = enumerate(self._members)
        return self._join(
            [self._run(mine, shared, self._take(carry, np.int32(number)), start, num) for number, mine in turns]
        )

    def _run(self, members: Members, shared: Any, carry: Carry, start: int, num: int) -> Any:
        if not self._by_step:
            return self._whole(members, shared, carry, Span(np.int32(start), np.int32(num)))
        rows = self._rows(members, shared, np.int32(start))
        # The steps overwrite their start in place, but the caller still holds it.
        now = (jax.tree.map(jnp.copy, carry), self._empty(members, shared, carry))
        for i in range(num):
            now = self._step(members, shared, now, rows, Span(np.int32(start), np.int32(i)))
        return now
