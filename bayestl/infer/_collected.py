"""The chain that a sampler has collected so far."""

from __future__ import annotations

import warnings
from typing import Protocol

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Params
from bayestl.posteriors import Chain
from bayestl.training import Ring


class _Collecting(Protocol):
    """A sampler's state."""

    @property
    def collected(self) -> Ring: ...

    @property
    def params(self) -> Params: ...


def as_chain(state: _Collecting) -> Chain:
    """The posterior of a sampler's state, which holds ``collected`` and ``params``."""
    ring = state.collected
    rows, count, capacity = ring.rows, ring.count, ring.capacity
    if not _tree.is_concrete(state):
        return _chain(ring, capacity, state.params)
    filled = min(int(count), capacity)
    if filled == 0:
        warnings.warn(
            "the chain holds no draws, since none of its steps was one to collect (start, every): every prediction "
            "from it is NaN; run it for longer, or collect earlier",
            RuntimeWarning,
            stacklevel=2,
        )
        return _chain(ring, capacity, state.params)
    if int(count) % capacity == 0:
        return Chain(rows, jnp.zeros(filled), state.params)
    return _chain(ring, filled, state.params)


def _chain(ring: Ring, num: int, params: Params) -> Chain:
    """The newest ``num`` rows, oldest first; rows without a draw come last."""
    filled = jnp.minimum(ring.count, ring.capacity)
    order = (ring.count - filled + jnp.arange(num)) % ring.capacity
    # NaN, since categorical draws from weights that are all -inf would quietly be the first row.
    draws = jax.tree.map(lambda x: jnp.where(ring.count > 0, x[order], jnp.nan), ring.rows)
    return Chain(draws, jnp.where(jnp.arange(num) < filled, 0.0, -jnp.inf), params)
