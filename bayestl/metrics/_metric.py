"""A metric in two halves: what it keeps of each example, and what it makes of all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Numbers, Targets
from bayestl.metrics._examples import Predictive, check_targets, example_weights


class Metric(NamedTuple):
    """A metric that can be gathered batch by batch: a few numbers per example are all that it needs.

    Attributes:
        name: what it is called in a report.
        each: ``(predictive, targets) -> pytree of arrays (B, ...)``, each example by itself.
        summary: ``(what each gave, weights (B,)) -> number``, over all examples; padding has weight 0 and may hold
            anything.
    """

    name: str
    each: Callable[[Predictive, Any], Any]
    summary: Callable[[Any, jax.Array], Any]

    def __call__(self, predictive: Predictive, targets: Targets, weights: Numbers | None = None) -> Any:
        """The metric of one predictive."""
        targets = _tree.with_arrays(targets)
        check_targets(predictive, targets, weights)
        numbers = self._numbers(predictive, targets, weights)
        num = jax.tree.leaves(numbers)[0].shape[0]
        return self.summary(numbers, example_weights(weights, num))

    def _numbers(self, predictive: Predictive, targets: Targets, weights: Any) -> Any:
        if weights is None:
            return self.each(predictive, targets)
        counts = jnp.asarray(weights) > 0
        if _tree.is_concrete(counts) and not bool(jnp.any(counts)):
            return jax.tree.map(jnp.zeros_like, jax.eval_shape(self.each, predictive, targets))
        return self.each(predictive, jax.tree.map(partial(_without_padding, counts), targets))


def _without_padding(counts: jax.Array, targets: jax.Array) -> jax.Array:
    """Padding may hold anything; it is overwritten by the first target that counts, which a predictive takes."""
    targets = jnp.asarray(targets)
    return jnp.where(counts.reshape(-1, *[1] * (targets.ndim - 1)), targets, targets[jnp.argmax(counts)])
