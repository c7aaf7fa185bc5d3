"""Yes or no."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl.likelihoods._columns import one_each
from bayestl.likelihoods._logits import log_sigmoid, probit_moderated
from bayestl.likelihoods._raw import at_least_float32


class BernoulliLogits(dist.BernoulliLogits):
    """numpyro's distribution, with derivatives that are right at a logit of exactly 0 (where numpyro 0.22 gives 0 or 1
    instead of the gradients -1/2 and 1/2) and at infinity."""

    def log_prob(self, value: Any) -> jax.Array:
        """``log 1 / (1 + exp(-f))`` for 1, of ``-f`` for 0; NaN for a target that is neither."""
        logits, value = jnp.asarray(self.logits), jnp.asarray(value)
        # Selected, not multiplied by the target: 0 times an infinite logit is NaN.
        values = log_sigmoid(jnp.where(value == 1, logits, -logits))
        return jnp.where((value == 0) | (value == 1), values, jnp.nan)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Logistic function of the outputs. Made by :func:`bernoulli`."""

    outputs_are_logits: ClassVar[bool] = True

    def __call__(self, outputs: Float[Array, " B"]) -> dist.Distribution:
        """Distribution over {0, 1}, batch shape (B,)."""
        return BernoulliLogits(at_least_float32(outputs), validate_args=False)

    def hessian_root(self, outputs: Float[Array, " B"]) -> Float[Array, "1 B"]:
        """``sqrt(p (1 - p))``."""
        return bernoulli_root(at_least_float32(outputs))

    def moderated(self, mean: Float[Array, " B"], covariance: Float[Array, "B 1 1"]) -> Float[Array, " B"]:
        """``f / sqrt(1 + pi/8 v)``: MacKay's approximation of the averaged probability, off by at most 0.02."""
        return probit_moderated(mean, covariance[..., 0, 0])


def bernoulli_root(logits: Float[Array, "B ..."]) -> Float[Array, "K B ..."]:
    """``sqrt(p (1 - p))`` for every binary label of the event."""
    return one_each(jnp.exp(0.5 * (log_sigmoid(logits) + log_sigmoid(-logits))))


def bernoulli() -> Bernoulli:
    """Likelihood for binary classification with one logit per example: logits (B,), targets 0 or 1 of shape (B,).

    The equation is ``log p(y = 1 | f) = -log(1 + exp(-f))``. A network whose outputs are (B, 1) must drop that axis,
    ``outputs[..., 0]``: against targets (B,) it would broadcast to B x B comparisons.

    Example:
        >>> likelihood = btl.likelihoods.bernoulli()
        >>> likelihood(jnp.zeros(3)).log_prob(jnp.array([0, 1, 1])).shape
        (3,)
    """
    return Bernoulli()
