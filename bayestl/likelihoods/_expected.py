"""What is to be expected of a target."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bayestl._types import Likelihood, Outputs
from bayestl.likelihoods._base import base
from bayestl.likelihoods._classes import class_probs, is_binary, is_categorical
from bayestl.likelihoods._consistent import check_inherited, check_normalised
from bayestl.likelihoods._methods import predictive_distribution


def expected_target(likelihood: Likelihood, outputs: Outputs) -> jax.Array:
    """Class probabilities (B, ..., C), (B, ...) of class 1 for yes or no, or the mean, (B, ...).

    Raises:
        TypeError: a density over classes that does not sum to 1; one that overrides ``log_prob`` and inherits its mean.
    """
    use = "an expected target"
    check_normalised(likelihood, outputs, use)
    distribution = base(predictive_distribution(likelihood, outputs))
    if is_binary(type(distribution)):
        return class_probs(distribution)[..., 1]
    if is_categorical(type(distribution)):
        return class_probs(distribution)
    check_inherited(type(distribution), "mean", use)
    return jnp.asarray(distribution.mean)
