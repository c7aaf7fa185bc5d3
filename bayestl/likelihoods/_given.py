"""Classes whose probabilities are given, from any classifier."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from bayestl._types import Key
from bayestl.likelihoods._categorical import at_labels


class GivenProbabilities(dist.Distribution):
    """Classes with exactly the given probabilities (..., C), including zeros, which numpyro's own would clip."""

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
        """``log p`` of the labels, -inf where the probability is zero; NaN for labels outside 0 .. C-1."""
        return at_labels(jnp.log(self.probs), jnp.asarray(value))

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Labels, ``sample_shape`` + batch shape."""
        return jax.random.categorical(key, jnp.log(self.probs), shape=sample_shape + self.batch_shape)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Given:
    """Outputs that are themselves the probabilities of the classes. Made by :func:`given`."""

    def __call__(self, outputs: Float[Array, "B C"]) -> dist.Distribution:
        """Distribution over labels in 0 .. C-1, batch shape (B,)."""
        return GivenProbabilities(outputs)


def given() -> Given:
    """Likelihood for classes whose probabilities (B, C) are given as they are, zeros included; integer labels (B,).

    It is not for training. It is for scoring probabilities from elsewhere:
    :func:`bayestl.predict.from_probabilities`.

    Example:
        >>> print(btl.likelihoods.given()(jnp.array([[0.25, 0.75]])).log_prob(jnp.array([1])).round(2))
        [-0.29]
    """
    return Given()
