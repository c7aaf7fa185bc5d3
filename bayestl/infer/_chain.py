"""Draws of one Markov chain, in the order drawn."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._posteriors import Samples
from bayestl._types import Params
from bayestl.training import Ring


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chain(Samples):
    """Draws of one Markov chain, in the order drawn: a :class:`~bayestl.Samples` of equal weights.

    Rows that hold no draw yet have log weight -inf; those of :func:`~bayestl.fit` are left out already.

    Attributes:
        params: where the chain is now.
    """

    params: Any


def as_chain(state: Any) -> Chain:
    """The posterior of a sampler's state, which holds ``collected`` and ``params``."""
    ring: Ring = state.collected
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
