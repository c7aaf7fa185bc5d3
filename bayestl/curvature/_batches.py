"""Passing over a data set in batches, inside one compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._types import Batch, Key
from bayestl.curvature._host import HostData, HostReader, reader_of


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batches:
    """All examples, in their order, ``batch_size`` at a time; the last batch is filled up and masked.

    Data that are not in memory are read batch by batch, every time they are passed over, by a call from the compiled
    program back to the host.

    Attributes:
        inputs: pytree of arrays (N, ...); with a reader the first examples, whose shapes and values stand for all
            where a network is looked at.
        targets: pytree of arrays (N, ...), or the first ones.
        mask: (N,), or None.
        batch_size: examples at once, static.
        reader: what reads data that are not in memory, or None; static.
    """

    inputs: Any
    targets: Any
    mask: Any
    batch_size: int = dataclasses.field(metadata={"static": True})
    reader: HostReader | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def num_examples(self) -> int:
        """N, those included that the mask leaves out."""
        return jax.tree.leaves(self.targets)[0].shape[0] if self.reader is None else self.reader.num_examples

    @property
    def num_batches(self) -> int:
        """ceil(N / batch_size)."""
        return -(-self.num_examples // self.batch_size)

    def get(self, number: Any) -> Batch:
        """Batch ``number``, which may be traced. Its mask, (B,) of float32, is 0 for padding.

        Examples are gathered, not sliced out of a padded copy of the data. What the mask leaves out is overwritten by
        a copy of a valid example, so that nothing in it, not a NaN, can reach a sum.
        """
        rows = number * self.batch_size + jnp.arange(self.batch_size)
        mask = (rows < self.num_examples).astype(jnp.float32)
        if self.reader is not None:
            inputs, targets = self.reader.traced(number, self.batch_size, (self.inputs, self.targets))
            return Batch(inputs, targets, mask)
        rows = jnp.minimum(rows, self.num_examples - 1)
        if self.mask is not None:
            given = jnp.asarray(self.mask)
            mask = mask * (given[rows] > 0)
            rows = jnp.where(mask > 0, rows, jnp.argmax(given > 0))
        inputs, targets = jax.tree.map(lambda x: x[rows], (self.inputs, self.targets))
        return Batch(inputs, targets, mask)

    def __iter__(self) -> Iterator[Batch]:
        """The batches in turn, outside of any compiled program."""
        for number in range(self.num_batches):
            if self.reader is None:
                yield self.get(number)
            else:
                inputs, targets = jax.device_put(self.reader.read(number, self.batch_size))
                real = jnp.arange(self.batch_size) < self.num_examples - number * self.batch_size
                yield Batch(inputs, targets, real.astype(jnp.float32))

    def sum(self, key: Key, fn: Callable[..., Any], kept: Any = None) -> Any:
        """The sum over batches of ``fn(key of the batch, batch)``, a pytree of arrays; one batch is held at a time.

        With ``kept``, what :meth:`map` gave, of ``fn(key, batch, what map gave for this batch)``.
        """
        kept = () if kept is None else (kept,)

        def one(number: jax.Array, kept: tuple) -> Any:
            return fn(jax.random.fold_in(key, number), self.get(number), *kept)

        first = jax.tree.map(lambda x: x[0], kept)
        shapes = jax.eval_shape(one, jnp.zeros((), jnp.int32), first)
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def add(total: Any, numbered: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, one(*numbered)), None

        return jax.lax.scan(add, start, (jnp.arange(self.num_batches), kept))[0]

    def map(self, key: Key, fn: Callable[[Key, Batch], Any]) -> Any:
        """``fn(key of the batch, batch)`` of every batch, stacked along a leading axis (number of batches, ...)."""
        return jax.lax.map(
            lambda number: fn(jax.random.fold_in(key, number), self.get(number)), jnp.arange(self.num_batches)
        )

    def num_seen(self) -> jax.Array:
        """How many examples the mask leaves in, a scalar."""
        if self.mask is None:
            return jnp.asarray(self.num_examples, jnp.result_type(float))
        return jnp.sum(jnp.asarray(self.mask) > 0).astype(jnp.result_type(float))

    def run(self, program: Callable[..., Any], *args: Any) -> Any:
        """``program(*args)``, which passes over these data. Where they cannot be read it raises the error of the
        reading, of which XLA's own has but the text."""
        if self.reader is None:
            return program(*args)
        self.reader.failure = None
        try:
            return jax.block_until_ready(program(*args))
        except Exception:
            failure, self.reader.failure = self.reader.failure, None
            if failure is None:
                raise
            raise failure from None


def batches(data: Any, batch_size: int | None) -> Batches:
    """All examples of ``data`` to be passed over in batches: a data set in memory, one that is read from storage
    (:func:`bayestl.data.stream`), or one :class:`~bayestl.Batch`.

    Raises:
        TypeError: data that hold no examples and cannot be read by rows.
        ValueError: a batch size below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1, or None for all examples at once")
    passes = data if isinstance(data, Batches) else _all_at_once(data)
    return dataclasses.replace(passes, batch_size=min(int(batch_size or passes.num_examples), passes.num_examples))


def _all_at_once(data: Any) -> Batches:
    inputs, targets = getattr(data, "inputs", None), getattr(data, "targets", None)
    if inputs is not None and targets is not None:
        return Batches(inputs, targets, getattr(data, "mask", None), jax.tree.leaves(targets)[0].shape[0])
    if isinstance(data, HostData):
        first = data.examples()
        return Batches(first.inputs, first.targets, None, data.num_examples, reader_of(data))
    raise TypeError(
        f"data is a {type(data).__name__} that neither holds its inputs and targets nor can be read by rows; curvature "
        "passes over all of them: give bayestl.data.arrays(inputs, targets), or bayestl.data.stream(source, example)"
    )
