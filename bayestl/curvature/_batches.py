"""Passing over a data set in batches, inside one compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._types import Batch, Key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batches:
    """All examples, in their order, ``batch_size`` at a time; the last batch is filled up and masked.

    Attributes:
        inputs: pytree of arrays (N, ...).
        targets: pytree of arrays (N, ...).
        mask: (N,), or None.
        batch_size: examples at once, static.
    """

    inputs: Any
    targets: Any
    mask: Any
    batch_size: int = dataclasses.field(metadata={"static": True})

    @property
    def num_examples(self) -> int:
        """N, those included that the mask leaves out."""
        return jax.tree.leaves(self.targets)[0].shape[0]

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
        rows = jnp.minimum(rows, self.num_examples - 1)
        if self.mask is not None:
            given = jnp.asarray(self.mask)
            mask = mask * (given[rows] > 0)
            rows = jnp.where(mask > 0, rows, jnp.argmax(given > 0))
        inputs, targets = jax.tree.map(lambda x: x[rows], (self.inputs, self.targets))
        return Batch(inputs, targets, mask)

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


def batches(data: Any, batch_size: int | None) -> Batches:
    """All examples of ``data`` (a data set in memory, or one :class:`~bayestl.Batch`), to be passed over in batches.

    Raises:
        TypeError: data that are not in memory.
        ValueError: a batch size below 1.
    """
    inputs, targets = getattr(data, "inputs", None), getattr(data, "targets", None)
    if inputs is None or targets is None:
        raise TypeError(
            f"data is a {type(data).__name__} that does not hold its inputs and targets; curvature passes over all of "
            "them, again and again: give bayestl.data.arrays(inputs, targets)"
        )
    num = jax.tree.leaves(targets)[0].shape[0]
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1, or None for all examples at once")
    size = num if batch_size is None else min(int(batch_size), num)
    return Batches(inputs, targets, getattr(data, "mask", None), size)
