"""Weighted mixtures of posteriors."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._types import Key, Params, Posterior


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixture:
    """A weighted mixture of posteriors, as several Gaussians around different modes give.

    Attributes:
        components: posteriors over the same tree.
        log_weights: (number of components,), need not be normalised.

    Example:
        >>> modes = [btl.gaussians.isotropic({"w": jnp.full(2, m)}, scale=0.1) for m in (-1.0, 1.0)]
        >>> btl.Mixture(tuple(modes), jnp.zeros(2)).sample(jax.random.key(0), 5)["w"].shape
        (5, 2)
    """

    components: tuple[Posterior, ...]
    log_weights: jax.Array

    def sample(self, key: Key, num_samples: int) -> Params:
        """``num_samples`` draws, the component of each by weight; leaves have a leading axis of that length."""
        check_arguments(Mixture.sample, locals())
        pick, *keys = jax.random.split(key, len(self.components) + 1)
        chosen = jax.random.categorical(pick, self.log_weights, shape=(num_samples,))
        draws = [c.sample(k, num_samples) for c, k in zip(self.components, keys, strict=True)]
        return jax.tree.map(lambda *xs: jnp.stack(xs)[chosen, jnp.arange(num_samples)], *draws)
