"""The kinds of posterior besides Gaussians: a point, draws, and mixtures."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._types import Key, Params, Posterior


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Point:
    """All mass on one set of parameters, as MAP gives.

    Attributes:
        params: the parameters.
    """

    params: Any

    def sample(self, key: Key, num: int) -> Params:
        """``num`` copies; leaves have a leading axis of that length."""
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), self.params)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Weighted draws, as chains and ensembles give.

    Attributes:
        draws: parameters; leaves have a leading axis S.
        log_weights: (S,), need not be normalised.
    """

    draws: Any
    log_weights: jax.Array

    def sample(self, key: Key, num: int) -> Params:
        """``num`` draws with replacement, by weight; leaves have a leading axis of that length."""
        rows = jax.random.categorical(key, self.log_weights, shape=(num,))
        return jax.tree.map(lambda x: x[rows], self.draws)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixture:
    """A weighted mixture of posteriors, as several Gaussians around different modes give.

    Attributes:
        components: posteriors over the same tree.
        log_weights: (number of components,), need not be normalised.
    """

    components: tuple[Posterior, ...]
    log_weights: jax.Array

    def sample(self, key: Key, num: int) -> Params:
        """``num`` draws, the component of each by weight; leaves have a leading axis of that length."""
        pick, *keys = jax.random.split(key, len(self.components) + 1)
        chosen = jax.random.categorical(pick, self.log_weights, shape=(num,))
        draws = [c.sample(k, num) for c, k in zip(self.components, keys, strict=True)]
        return jax.tree.map(lambda *xs: jnp.stack(xs)[chosen, jnp.arange(num)], *draws)
