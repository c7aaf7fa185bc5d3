"""A Gaussian of this package as a NumPyro distribution over flat vectors."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from bayestl import _tree
from bayestl._types import Key, Params
from bayestl.bridges._sites import sites_of
from bayestl.gaussians import Gaussian


class FlatGaussian(dist.Distribution):
    """A Gaussian over a parameter tree, seen as a distribution over vectors (D,): its leaves one after another.

    Args:
        gaussian: the Gaussian; nothing of size D x D is formed.
    """

    # The Gaussian is the one field with arrays; NumPyro registers its distributions as pytrees by this name. Without
    # arguments to constrain, NumPyro takes the samples as reparameterised, which they are.
    pytree_data_fields = ("gaussian",)
    support = dist.constraints.real_vector  # pyright: ignore[reportAssignmentType]  numpyro declares a property

    def __init__(self, gaussian: Gaussian):
        self.gaussian = gaussian
        super().__init__((), (_tree.size(gaussian.mean),), validate_args=False)

    def log_prob(self, value: jax.Array, intermediates: Any = None) -> jax.Array:
        """Log density of vectors (..., D): (...)."""

        def one(vector: jax.Array) -> jax.Array:
            return self.gaussian.log_prob(sites_of(self.gaussian.mean).to_params({"theta": vector}))

        return jnp.vectorize(one, signature="(d)->()")(value)

    def sample(self, key: Key | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Independent draws, (*sample_shape, D)."""
        assert key is not None, "numpyro gave no key: wrap the model in handlers.seed"
        draws = self._flat(self.gaussian.sample(key, math.prod(sample_shape)))
        return draws.reshape(*sample_shape, *self.event_shape)

    @property
    def mean(self) -> jax.Array:
        """The mean, (D,)."""
        return self._flat(self.gaussian.mean)

    @property
    def variance(self) -> jax.Array:
        """Marginal variances, (D,)."""
        return self._flat(self.gaussian.variance)

    def _flat(self, tree: Params) -> jax.Array:
        return sites_of(self.gaussian.mean).to_values(tree)["theta"]
