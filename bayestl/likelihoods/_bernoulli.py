"""Yes or no."""

from __future__ import annotations

import dataclasses

import jax
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl.likelihoods._raw import at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Logistic function of the outputs. Made by :func:`bernoulli`."""

    def __call__(self, outputs: Float[Array, " B"]) -> dist.Distribution:
        """Distribution over {0, 1}, batch shape (B,)."""
        return dist.BernoulliLogits(at_least_float32(outputs), validate_args=False)


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
