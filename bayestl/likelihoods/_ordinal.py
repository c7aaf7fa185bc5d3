"""Classes in an order."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.likelihoods._categorical import CategoricalLogits
from bayestl.likelihoods._raw import as_leaf, at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ordinal:
    """Cumulative logits: ``P(y <= k) = sigmoid(cut_k - f)``. Made by :func:`ordinal`.

    Attributes:
        cutpoints: (C - 1,), ascending.
    """

    cutpoints: Any

    def __call__(self, outputs: Float[Array, " B"]) -> dist.Distribution:
        """Distribution over labels 0 .. C-1, batch shape (B,)."""
        return CategoricalLogits(self._log_probs(at_least_float32(outputs)), validate_args=False)

    def hessian_root(self, outputs: Float[Array, " B"]) -> Float[Array, "C B"]:
        """``sqrt(p_k)`` times the score of class k, ``sigmoid(cut_k - f) + sigmoid(cut_{k-1} - f) - 1``."""
        outputs = at_least_float32(outputs)
        below = jax.nn.sigmoid(self.cutpoints - outputs[:, None])
        ends = jnp.zeros_like(outputs[:, None])
        score = jnp.concatenate([below, ends + 1], 1) + jnp.concatenate([ends, below], 1) - 1
        return (jnp.exp(0.5 * self._log_probs(outputs)) * score).T

    def _log_probs(self, outputs: jax.Array) -> jax.Array:
        """(B, C). With a = cut_k - f and b = cut_{k-1} - f: ``sigmoid(a) sigmoid(-b) (1 - exp(b - a))``, in logs."""
        away = self.cutpoints - outputs[:, None]
        below, above = jax.nn.log_sigmoid(away), jax.nn.log_sigmoid(-away)
        between = below[:, 1:] + above[:, :-1] + jnp.log(-jnp.expm1(-jnp.diff(self.cutpoints)))
        return jnp.concatenate([below[:, :1], between, above[:, -1:]], 1)


def ordinal(cutpoints: Numbers) -> Ordinal:
    """Likelihood of classes in an order, such as grades: one number (B,) per example, integer labels (B,).

    The equation is ``P(y <= k | f) = sigmoid(cut_k - f)``: a larger output shifts everything to higher classes (the
    proportional-odds model). The scale of the outputs is free, so that cutpoints such as -1, 0, 1 will do.

    Args:
        cutpoints: (C - 1,), ascending, at least one. A leaf, which may be traced.

    Raises:
        ValueError: cutpoints that do not ascend, or are not finite.

    Reference:
        McCullagh 1980, "Regression Models for Ordinal Data".

    Example:
        >>> likelihood = btl.likelihoods.ordinal([-1.0, 1.0])
        >>> print(f"{jnp.exp(likelihood(jnp.zeros(1)).log_prob(jnp.array([1])))[0]:.3f}")
        0.462
    """
    check_arguments(ordinal, locals())
    cuts = as_leaf(cutpoints)
    if cuts.ndim != 1 or not cuts.size:
        raise ValueError(f"cutpoints has shape {cuts.shape}; give the C - 1 places between C classes")
    if _tree.is_concrete(cuts) and not (bool(jnp.all(jnp.isfinite(cuts))) and bool(jnp.all(jnp.diff(cuts) > 0))):
        raise ValueError(f"cutpoints is {cutpoints}; the places between the classes must ascend, and be finite")
    return Ordinal(cuts)
