"""Classification into several classes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl.likelihoods._logits import log_softmax, probit_moderated
from bayestl.likelihoods._raw import at_least_float32


class CategoricalLogits(dist.CategoricalLogits):
    """numpyro's distribution, with derivatives that are right for infinite logits."""

    def log_prob(self, value: Any) -> jax.Array:
        """``f_y - log sum_c exp f_c``; NaN for labels outside 0 .. C-1, which must not count as another class."""
        value = jnp.asarray(value)
        shape = jnp.broadcast_shapes(value.shape, self.batch_shape)
        log_probs = jnp.broadcast_to(log_softmax(jnp.asarray(self.logits)), (*shape, jnp.shape(self.logits)[-1]))
        return at_labels(log_probs, jnp.broadcast_to(value, shape))


def at_labels(log_probs: Float[Array, "... C"], labels: Any) -> Float[Array, ...]:
    """The log probabilities of the labels (...), NaN for those outside 0 .. C-1."""
    values = jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    return jnp.where((labels >= 0) & (labels < log_probs.shape[-1]), values, jnp.nan)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Categorical:
    """Softmax over the last axis of the outputs. Made by :func:`categorical`."""

    outputs_are_logits: ClassVar[bool] = True

    def __call__(self, outputs: Float[Array, "B C"]) -> dist.Distribution:
        """Distribution over labels in 0 .. C-1, batch shape (B,)."""
        # numpyro's own eager check would stop a run that diverged before `fit` can say at which step that happened.
        return CategoricalLogits(at_least_float32(outputs), validate_args=False)

    def hessian_root(self, outputs: Float[Array, "B C"]) -> Float[Array, "C B C"]:
        """``diag(sqrt p) - p sqrt(p)^T``, a root of ``diag(p) - p p^T``."""
        return categorical_root(at_least_float32(outputs))

    def moderated(self, mean: Float[Array, "B C"], covariance: Float[Array, "B C C"]) -> Float[Array, "B C"]:
        """Every logit shrunk according to its own variance, ``f_c / sqrt(1 + pi/8 V_cc)``."""
        return probit_moderated(mean, jnp.diagonal(covariance, axis1=-2, axis2=-1))


def categorical_root(logits: Float[Array, "B ... C"]) -> Float[Array, "K B ... C"]:
    """``sqrt(p_j) (e_j - p)`` for every class j, for every label of the event."""
    log_p = log_softmax(logits)
    centred = jnp.eye(logits.shape[-1], dtype=logits.dtype) - jnp.exp(log_p)[..., None, :]
    columns = jnp.exp(0.5 * log_p)[..., None] * centred  # (B, ..., j, c)
    columns = jnp.moveaxis(columns, -2, 0)  # (j, B, ..., c)
    labels = math.prod(logits.shape[1:-1])
    if labels == 1:
        return columns
    eye = jnp.eye(labels, dtype=logits.dtype).reshape(labels, 1, 1, *logits.shape[1:-1], 1)
    return (eye * columns).reshape(-1, *logits.shape)


def categorical() -> Categorical:
    """Likelihood for classification into C classes: logits (B, C), integer labels (B,).

    The equation is ``log p(y | f) = f_y - log sum_c exp f_c``.

    Example:
        >>> likelihood = btl.likelihoods.categorical()
        >>> logits = jnp.zeros((2, 4))
        >>> likelihood(logits).log_prob(jnp.array([0, 3])).shape
        (2,)
    """
    return Categorical()
