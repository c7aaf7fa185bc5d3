"""Entropies of class probabilities, and the part of them that comes from not knowing the parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float


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
