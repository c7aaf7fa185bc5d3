"""The distribution of a class whose probabilities are given."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints


class GivenProbabilities(dist.Distribution):
    """Classes with exactly the given probabilities (..., C), zeros included, of which numpyro's own are clipped."""

    arg_constraints: ClassVar = {"probs": constraints.simplex}
    pytree_data_fields = ("probs",)

    def __init__(self, probs: jax.Array):
        self.probs = probs
        super().__init__(batch_shape=probs.shape[:-1], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Labels from 0 to C - 1."""
        return constraints.integer_interval(0, self.probs.shape[-1] - 1)

    def log_prob(self, value: Any) -> jax.Array:
        """``log p`` of the labels, -inf where the probability is zero."""
        return jnp.log(jnp.take_along_axis(self.probs, jnp.asarray(value)[..., None], axis=-1)[..., 0])

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Labels, ``sample_shape`` + batch shape."""
        return jax.random.categorical(key, jnp.log(self.probs), shape=sample_shape + self.batch_shape)
