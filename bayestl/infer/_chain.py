"""Draws of one Markov chain: collected in a ring on the device, and given back in the order drawn."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._posteriors import Samples
from bayestl._types import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chain(Samples):
    """Draws of one Markov chain, in the order drawn: a :class:`~bayestl.Samples` of equal weights.

    Rows that hold no draw yet have log weight -inf; those of :func:`~bayestl.fit` are left out already.

    Attributes:
        params: where the chain is now.
    """

    params: Any


class Collected(NamedTuple):
    """A ring of the last K draws.

    Attributes:
        rows: leaves (K, *shape); draw i lies in row i mod K.
        count: draws collected in all.
    """

    rows: Any
    count: Any

    def add(self, params: Params, wanted: Any) -> Collected:
        """With one more draw if ``wanted``, which may be traced."""
        row = self.count % num_rows(self.rows)

        def put(buffer: jax.Array, new: jax.Array) -> jax.Array:
            # One row is read and written whether wanted or not: a choice between two buffers would copy all of them.
            new = jnp.where(wanted, new, jax.lax.dynamic_index_in_dim(buffer, row, keepdims=False))
            return jax.lax.dynamic_update_index_in_dim(buffer, new, row, 0)

        count = self.count + jnp.asarray(wanted, jnp.int32)
        return Collected(jax.tree.map(put, self.rows, params), count)


def num_rows(rows: Params) -> int:
    """K, the length of the leading axis."""
    return jax.tree.leaves(rows)[0].shape[0]


def nothing_collected(params: Params, num_samples: int) -> Collected:
    """An empty ring for ``num_samples`` draws."""
    rows = jax.tree.map(lambda x: jnp.zeros((num_samples, *x.shape), x.dtype), params)
    return Collected(rows, jnp.zeros((), jnp.int32))


def as_chain(state: Any) -> Chain:
    """The posterior of a sampler's state, which holds ``collected`` and ``params``."""
    rows, count = state.collected
    capacity = num_rows(rows)
    if not _tree.is_concrete(state):
        return _chain(rows, count, capacity, state.params)
    filled = min(int(count), capacity)
    if filled == 0:
        warnings.warn(
            "the chain holds no draws, since none of its steps was one to collect (start, every): every prediction "
            "from it is NaN; run it for longer, or collect earlier",
            RuntimeWarning,
            stacklevel=2,
        )
        return _chain(rows, count, capacity, state.params)
    if int(count) % capacity == 0:
        return Chain(rows, jnp.zeros(filled), state.params)
    return _chain(rows, count, filled, state.params)


def _chain(rows: Params, count: Any, num: int, params: Params) -> Chain:
    """The newest ``num`` rows, oldest first; rows without a draw come last."""
    capacity = num_rows(rows)
    filled = jnp.minimum(count, capacity)
    order = (count - filled + jnp.arange(num)) % capacity
    # NaN, since categorical draws from weights that are all -inf would quietly be the first row.
    draws = jax.tree.map(lambda x: jnp.where(count > 0, x[order], jnp.nan), rows)
    return Chain(draws, jnp.where(jnp.arange(num) < filled, 0.0, -jnp.inf), params)


def pooled(chains: Samples | Sequence[Samples]) -> Samples:
    """The draws of several chains as one posterior.

    Args:
        chains: the posterior of :func:`~bayestl.fit_many`, whose leaves have a leading axis of chains; or a list of
            :class:`~bayestl.Samples`. Rows without a draw (log weight -inf) are left out.

    Returns:
        A :class:`~bayestl.Samples`, chain after chain.

    Raises:
        ValueError: no chains, or not one draw in them.

    Example:
        >>> chains = btl.Samples({"w": jnp.ones((4, 10, 2))}, jnp.zeros((4, 10)))      # 4 chains of 10 draws each
        >>> btl.infer.pooled(chains).draws["w"].shape
        (40, 2)
    """
    if isinstance(chains, Samples):
        axes = chains.log_weights.ndim
        chains = [jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes:]), Samples(chains.draws, chains.log_weights))]
    if not chains:
        raise ValueError("pooled got no chains; give the posterior of fit_many, or a list of Samples")
    draws = jax.tree.map(lambda *xs: jnp.concatenate(xs), *[c.draws for c in chains])
    log_weights = jnp.concatenate([c.log_weights for c in chains])
    filled = np.flatnonzero(np.isfinite(np.asarray(log_weights)))
    if not filled.size:
        raise ValueError("the chains hold no draws: every row has log weight -inf; run them for longer")
    if filled.size == len(log_weights):
        return Samples(draws, log_weights)
    return Samples(jax.tree.map(lambda x: x[filled], draws), log_weights[filled])
