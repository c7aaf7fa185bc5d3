"""Distributions over the classes of one label: their probabilities, and whether these are known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl.likelihoods._families import family_of, has_density_of
from bayestl.likelihoods._given import GivenProbabilities
from bayestl.likelihoods._logits import log_sigmoid, log_softmax

_BINARY = (dist.BernoulliLogits, dist.BernoulliProbs)
_SEVERAL = (dist.CategoricalLogits, dist.CategoricalProbs, GivenProbabilities)
_LOGITS = (dist.CategoricalLogits, dist.BernoulliLogits)


def is_binary(family: type) -> bool:
    """Whether a label is binary."""
    return issubclass(family, _BINARY)


def is_categorical(family: type) -> bool:
    """Whether a label is one of several classes."""
    return issubclass(family, _SEVERAL)


def has_known_density(family: type) -> bool:
    """Whether the parameters hold the class probabilities: ``log_prob`` is numpyro's own, or ours."""
    return family_of(family) is not None or has_density_of(family, *_BINARY, *_SEVERAL)


def class_probs(distribution: Any) -> Float[Array, "B C"]:
    """Probabilities of the classes; a binary distribution has the two classes 0 and 1."""
    if not has_known_density(type(distribution)):
        return jnp.exp(class_log_probs(distribution))
    probs = jnp.asarray(distribution.probs)
    return jnp.stack([1 - probs, probs], axis=-1) if is_binary(type(distribution)) else probs


def class_log_probs(distribution: Any) -> Float[Array, "B C"]:
    """Log probabilities of the classes; a binary distribution has the two classes 0 and 1.

    If the class of the distribution does not say what the density is, it is evaluated for every label in turn.
    """
    family = type(distribution)
    if not has_known_density(family):
        return _asked(distribution)
    if not issubclass(family, _LOGITS):
        return _safe_log(class_probs(distribution))
    logits = jnp.asarray(distribution.logits)
    if is_binary(family):
        return log_sigmoid(jnp.stack([-logits, logits], axis=-1))
    return log_softmax(logits)


def _asked(distribution: Any) -> Float[Array, "B C"]:
    """``log_prob`` of every class, one after another."""
    num = 2 if is_binary(type(distribution)) else distribution.probs.shape[-1]
    each = [distribution.log_prob(jnp.full(distribution.batch_shape, label)) for label in range(num)]
    return jnp.stack(each, axis=-1)


def _safe_log(probs: jax.Array) -> jax.Array:
    """``log p``, -inf with a gradient of 0 at p = 0."""
    return jnp.where(probs > 0, jnp.log(jnp.where(probs > 0, probs, 1)), -jnp.inf)
