"""Weighted draws."""

from __future__ import annotations

import dataclasses

import jax

from bayestl._arguments import check_arguments
from bayestl._types import Key, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Weighted draws, as ensembles give; those of Markov chains are a :class:`~bayestl.posteriors.Chain`.

    Attributes:
        draws: parameters; leaves have a leading axis S.
        log_weights: (S,), need not be normalised.

    Example:
        >>> posterior = btl.Samples({"w": jnp.arange(3.0)}, jnp.log(jnp.array([0.0, 0.0, 1.0])))
        >>> print(posterior.sample(jax.random.key(0), 2)["w"])
        [2. 2.]
    """

    draws: Params
    log_weights: jax.Array

    def sample(self, key: Key, num_samples: int) -> Params:
        """``num_samples`` draws with replacement, by weight; leaves have a leading axis of that length."""
        check_arguments(Samples.sample, locals())
        rows = jax.random.categorical(key, self.log_weights, shape=(num_samples,))
        return jax.tree.map(lambda x: x[rows], self.draws)
