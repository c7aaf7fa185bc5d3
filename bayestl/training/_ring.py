"""The latest of many parameter trees, in a ring buffer on the device."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._types import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ring:
    """The last K of the trees that were added.

    Every operation reads and writes one row only, whatever the program decides at run time. Choosing between two rings
    would copy all of their rows at every step.

    Attributes:
        rows: leaves (K, *shape); tree i lies in row i mod K.
        count: how many were added in all.
    """

    rows: Any
    count: Any

    @staticmethod
    def empty(params: Params, capacity: int) -> Ring:
        """An empty ring; ``capacity`` is K, ``params`` gives the shapes."""
        rows = jax.tree.map(lambda x: jnp.zeros((capacity, *jnp.shape(x)), jnp.result_type(x)), params)
        return Ring(rows, jnp.zeros((), jnp.int32))

    @property
    def capacity(self) -> int:
        """K, the number of rows."""
        return jax.tree.leaves(self.rows)[0].shape[0]

    def add(self, params: Params, adds: Any = True) -> Ring:
        """With one more if ``adds``, which may be traced."""
        rows = self._with_row(self.count % self.capacity, lambda old, new: jnp.where(adds, new, old), params)
        return Ring(rows, self.count + jnp.asarray(adds, jnp.int32))

    def if_else(self, good: Any, before: Ring) -> Ring:
        """This ring if ``good``, else ``before``, from which it differs by one :meth:`add` at most."""
        row = before.count % self.capacity
        old = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, row, keepdims=False), before.rows)
        rows = self._with_row(row, lambda new, old: jnp.where(good, new, old), old)
        return Ring(rows, jnp.where(good, self.count, before.count))

    def newest(self, num: int) -> Params:
        """The last ``num`` <= min(K, count), oldest first, leaves (num, *shape)."""
        rows = (self.count - num + jnp.arange(num)) % self.capacity
        return jax.tree.map(lambda buffer: buffer[rows], self.rows)

    def _with_row(self, row: Any, choose: Any, other: Params) -> Any:
        """One row replaced by ``choose(what is in it, other)``."""

        def put(buffer: jax.Array, other: jax.Array) -> jax.Array:
            value = choose(jax.lax.dynamic_index_in_dim(buffer, row, keepdims=False), other)
            return jax.lax.dynamic_update_index_in_dim(buffer, value.astype(buffer.dtype), row, 0)

        return jax.tree.map(put, self.rows, other)


def is_ring(x: Any) -> bool:
    """Whether a node of a state is a ring: a leaf for functions that must not touch all of its rows."""
    return isinstance(x, Ring)


def if_else(good: Any, new: Any, old: Any) -> Any:
    """``new`` if ``good``, else ``old``, the state one step earlier: leaf by leaf, and one row for rings."""

    def one(new: Any, old: Any) -> Any:
        return new.if_else(good, old) if is_ring(new) else jnp.where(good, new, old)

    return jax.tree.map(one, new, old, is_leaf=is_ring)
