"""Several labels for each example, each there or not."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl.likelihoods._bernoulli import BernoulliLogits, bernoulli_root
from bayestl.likelihoods._logits import probit_moderated
from bayestl.likelihoods._raw import at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """Logistic functions of the outputs, one per label. Made by :func:`multi_label`."""

    def __call__(self, outputs: Float[Array, "B L"]) -> dist.Distribution:
        """Distribution over {0, 1}^L, batch shape (B,)."""
        outputs = at_least_float32(outputs)
        return BernoulliLogits(outputs, validate_args=False).to_event(outputs.ndim - 1)

    def hessian_root(self, outputs: Float[Array, "B L"]) -> Float[Array, "L B L"]:
        """``sqrt(p (1 - p))`` along each label."""
        return bernoulli_root(at_least_float32(outputs))

    def moderated(self, mean: Float[Array, "B L"], covariance: Float[Array, "B F F"]) -> Float[Array, "B L"]:
        """Every logit shrunk by its own variance: the averaged probability of each label by itself."""
        variance = jnp.diagonal(covariance, axis1=-2, axis2=-1).reshape(mean.shape)
        return probit_moderated(at_least_float32(mean), variance)


def multi_label() -> MultiLabel:
    """Likelihood for several labels per example, independent given the outputs: logits (B, L), targets 0 or 1 (B, L).

    The equation is ``log p(y | f) = -sum_l log(1 + exp((1 - 2 y_l) f_l))``. Linearised predictions average the
    probability of each label by itself; ``predict.sampled`` averages that of all labels together.

    Example:
        >>> likelihood = btl.likelihoods.multi_label()
        >>> print(f"{likelihood(jnp.zeros((1, 3))).log_prob(jnp.array([[0, 1, 1]]))[0]:.3f}")
        -2.079
    """
    return MultiLabel()
