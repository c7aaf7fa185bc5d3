"""Entropies of class probabilities, and what of them comes from not knowing the parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float


def class_log_probs(distribution: Any) -> Float[Array, "B C"]:
    """Log probabilities of the classes; a yes-or-no distribution has the two classes 0 and 1."""
    if isinstance(distribution, dist.CategoricalLogits):
        return jax.nn.log_softmax(distribution.logits)
    if isinstance(distribution, dist.BernoulliLogits):
        logits = jnp.asarray(distribution.logits)
        return jax.nn.log_sigmoid(jnp.stack([-logits, logits], axis=-1))
    if isinstance(distribution, dist.BernoulliProbs):
        return _safe_log(jnp.stack([jnp.subtract(1, distribution.probs), distribution.probs], axis=-1))
    return _safe_log(distribution.probs)


def _safe_log(probs: jax.Array) -> jax.Array:
    """``log p``, -inf with a gradient of 0 at p = 0."""
    return jnp.where(probs > 0, jnp.log(jnp.where(probs > 0, probs, 1)), -jnp.inf)


def entropy(log_probs: Float[Array, "... C"]) -> jax.Array:
    """``-sum_c p_c log p_c`` in nats, with ``0 log 0 = 0``."""
    possible = log_probs > -jnp.inf
    finite = jnp.where(possible, log_probs, 0)
    return -jnp.sum(jnp.where(possible, jnp.exp(finite) * finite, 0), axis=-1)


def mixed(log_weights: Float[Array, " S"], log_probs: Float[Array, "S B C"]) -> Float[Array, "B C"]:
    """``log sum_s w_s p_s``."""
    return logsumexp(log_weights[:, None, None] + log_probs, axis=0)


def information(log_weights: Float[Array, " S"], log_probs: Float[Array, "S B C"]) -> Float[Array, " B"]:
    """``sum_s w_s KL(p_s || sum_t w_t p_t)`` in nats, never below 0.

    The same number as the entropy of the average less the average of the entropies, but without that cancellation: a
    sum over classes of ``p log(p / q) - p + q``, of which no term is negative.
    """
    average = mixed(log_weights, log_probs)
    possible = (log_probs > -jnp.inf) & (average > -jnp.inf)
    ratio = jnp.where(possible, log_probs, 0) - jnp.where(possible, average, 0)
    p, q = jnp.exp(log_probs), jnp.exp(average)
    # p - q by way of the ratio where both are near, so that equal samples have none.
    near = jnp.abs(ratio) < 1
    excess = jnp.where(near & possible, q * jnp.expm1(jnp.where(near, ratio, 0)), p - q)
    divergence = jnp.sum(jnp.maximum(p * ratio - excess, 0), axis=-1)
    return jnp.sum(jnp.exp(log_weights)[:, None] * divergence, axis=0)
