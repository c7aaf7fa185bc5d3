"""Draws of Markov chains, in the order drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.posteriors._samples import Samples


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chain(Samples):
    """Equally weighted draws of a Markov chain, or of several one after another, each in the order drawn.

    Rows that hold no draw yet have log weight -inf; those of :func:`~bayestl.fit` are left out already. What
    :func:`~bayestl.fit_many` gives has a leading axis of chains on every leaf, and :func:`pooled` makes one posterior
    of it that still knows its chains. Whether they mixed is asked of ``bayestl.diagnostics``.

    Attributes:
        params: where the chain is now; of several, leaves have a leading axis of chains.
        chain: (S,), the number of the chain that each row is of; None where there is one chain.
        stats: what the sampler says about each draw, name to array (S,): for :func:`~bayestl.bridges.nuts`
            ``"diverging"`` and ``"accept_prob"``.

    Example:
        >>> posterior = btl.posteriors.Chain({"w": jnp.arange(4.0)}, jnp.zeros(4), {"w": jnp.array(3.0)})
        >>> btl.diagnostics.by_chain(posterior)["w"].shape
        (1, 4)
    """

    params: Params
    chain: jax.Array | None = None
    stats: dict[str, jax.Array] = dataclasses.field(default_factory=dict)


def pooled(chains: Samples | Sequence[Samples]) -> Samples:
    """The draws of several chains as one posterior.

    Args:
        chains: the posterior of :func:`~bayestl.fit_many`, whose leaves have a leading axis of chains; or a list of
            :class:`~bayestl.Samples`. Rows without a draw (log weight -inf) are left out.

    Returns:
        Draws chain after chain: a :class:`Chain` that knows which row is of which chain, or a
        :class:`~bayestl.Samples` when some of ``chains`` are not chains.

    Raises:
        ValueError: no chains, or not one draw in them.

    Example:
        >>> chains = btl.Samples({"w": jnp.ones((4, 10, 2))}, jnp.zeros((4, 10)))      # 4 chains of 10 draws each
        >>> btl.posteriors.pooled(chains).draws["w"].shape
        (40, 2)
    """
    check_arguments(pooled, locals())
    each = _apart(chains)
    if not each:
        raise ValueError("pooled got no chains; give the posterior of fit_many, or a list of Samples")
    log_weights = jnp.concatenate([c.log_weights for c in each])
    filled = np.flatnonzero(np.isfinite(np.asarray(log_weights)))
    if not filled.size:
        raise ValueError("the chains hold no draws: every row has log weight -inf; run them for longer")

    def joined(*leaves: jax.Array) -> jax.Array:
        together = jnp.concatenate(leaves)
        return together if filled.size == len(log_weights) else together[filled]

    draws, weights = jax.tree.map(joined, *[(c.draws, c.log_weights) for c in each])
    together = [c for c in each if isinstance(c, Chain)]
    if len(together) < len(each):
        return Samples(draws, weights)
    chain = joined(*[jnp.full(len(c.log_weights), number) for number, c in enumerate(each)])
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[c.params for c in together])
    shared = set.intersection(*[set(c.stats) for c in together])
    stats = {name: joined(*[c.stats[name] for c in together]) for name in sorted(shared)}
    return Chain(draws, weights, params, chain, stats)


def _apart(chains: Samples | Sequence[Samples]) -> list[Samples]:
    """Chains one by one, from however many leading axes they have."""
    if not isinstance(chains, Samples):
        return [one for group in chains for one in _apart(group)]
    if chains.log_weights.ndim > 1:
        return [one for row in range(len(chains.log_weights)) for one in _apart(_row(chains, row))]
    if isinstance(chains, Chain) and chains.chain is not None:
        numbers = np.asarray(chains.chain)
        return [_rows_of(chains, int(number), numbers == number) for number in np.unique(numbers)]
    return [chains]


def _row(chains: Samples, row: int) -> Samples:
    return jax.tree.map(lambda x: x[row], chains)


def _rows_of(chains: Chain, number: int, mask: np.ndarray) -> Chain:
    rows = np.flatnonzero(mask)
    draws, log_weights, stats = jax.tree.map(lambda x: x[rows], (chains.draws, chains.log_weights, chains.stats))
    return Chain(draws, log_weights, jax.tree.map(lambda x: x[number], chains.params), stats=stats)
