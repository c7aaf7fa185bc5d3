"""Log probabilities of classes from logits, with values and derivatives that are right at 0 and at infinity.

The derivatives are written out. Differentiating the formulas for the values automatically would be wrong where they
switch branches (at a logit of exactly 0), and give NaN where infinities cancel.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The logistic function is close to the normal cdf of sqrt(pi / 8) times its argument, which has the same slope at 0.
_SLOPE = math.pi / 8


@jax.custom_jvp
def log_sigmoid(logits: Float[Array, ...]) -> Float[Array, ...]:
    """``log 1 / (1 + exp(-f))``: -inf at -inf, 0 at inf."""
    # min(f, 0) - log1p(exp(-|f|)), which neither overflows nor cancels
    return jnp.minimum(logits, 0) - jnp.log1p(jnp.exp(-jnp.abs(logits)))


@log_sigmoid.defjvp
def _log_sigmoid_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (logits,), (tangent,) = primals, tangents
    return log_sigmoid(logits), tangent * jnp.exp(log_sigmoid(-logits))


@jax.custom_jvp
def log_softmax(logits: Float[Array, "... C"]) -> Float[Array, "... C"]:
    """``f_c - log sum_j exp f_j`` over the last axis; a single logit of inf is a certain class."""
    top = jnp.max(logits, axis=-1, keepdims=True)
    certain = jnp.where(logits == jnp.inf, 0.0, -jnp.inf).astype(logits.dtype)
    shifted = jnp.where(top == jnp.inf, certain, logits - jnp.where(top == jnp.inf, 0, top))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


@log_softmax.defjvp
def _log_softmax_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (logits,), (tangent,) = primals, tangents
    log_probs = log_softmax(logits)
    return log_probs, tangent - jnp.sum(jnp.exp(log_probs) * tangent, axis=-1, keepdims=True)


def probit_moderated(mean: Float[Array, ...], variance: Float[Array, ...]) -> Float[Array, ...]:
    """Logits ``f / sqrt(1 + pi/8 v)`` whose probabilities approximate the average over logits ``N(f, v)``."""
    return mean * jax.lax.rsqrt(1 + _SLOPE * variance)


def mean_field_moderated(mean: Float[Array, "... C"], spread: Float[Array, "... C C"]) -> Float[Array, "... C"]:
    """Logits ``-log sum_j exp(-(f_c - f_j) / sqrt(1 + pi/8 spread_cj))``, which the softmax normalises."""
    differences = mean[..., :, None] - mean[..., None, :]
    return -jax.scipy.special.logsumexp(-differences * jax.lax.rsqrt(1 + _SLOPE * spread), axis=-1)
