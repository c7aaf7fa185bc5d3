"""Densities over classes that are trained on and not predicted with, since they need not sum to 1."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from bayestl._types import Key, Likelihood, Outputs
from bayestl.likelihoods._categorical import at_labels
from bayestl.likelihoods._classes import class_log_probs, is_binary, is_categorical


class ClassDensity(dist.Distribution):
    """Labels 0 .. C-1 with any numbers (..., C) in the place of their log probabilities."""

    arg_constraints: ClassVar = {"log_densities": constraints.real_vector}
    pytree_data_fields = ("log_densities",)

    def __init__(self, log_densities: jax.Array):
        self.log_densities = log_densities
        super().__init__(batch_shape=log_densities.shape[:-1], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Labels from 0 to C - 1."""
        return constraints.integer_interval(0, self.log_densities.shape[-1] - 1)

    def log_prob(self, value: Any) -> jax.Array:
        """The numbers of the labels; NaN for labels outside 0 .. C-1."""
        return at_labels(self.log_densities, jnp.asarray(value).astype(int))

    def sample(self, key: Key, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Nothing: the density is not that of labels.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "this density over classes is trained on, and need not sum to 1, so that no labels can be drawn from it; "
            "draw from likelihoods.predictive_distribution(likelihood, outputs)"
        )


def class_densities(function: str, likelihood: Likelihood, outputs: Outputs) -> Float[Array, "B C"]:
    """What a likelihood gives for every class: log probabilities, or the numbers of a density like the one above.

    Args:
        function: public name of what is made of them, for the message.
        likelihood: of one class per example, yes or no included.
        outputs: its raw outputs.

    Raises:
        TypeError: another likelihood.
    """
    distribution = likelihood(outputs)
    if isinstance(distribution, ClassDensity):
        return distribution.log_densities
    family = type(distribution)
    if not (is_binary(family) or is_categorical(family)) or distribution.event_shape:
        raise TypeError(
            f"{function} is on top of a likelihood of one class per example, and this one gives a {family.__name__} "
            f"over targets of shape {tuple(distribution.event_shape)}; give likelihoods.categorical() or bernoulli()"
        )
    return class_log_probs(distribution)
