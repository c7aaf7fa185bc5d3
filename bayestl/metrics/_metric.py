"""A metric in two halves: what it keeps of each example, and what it makes of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from bayestl._types import Targets
from bayestl.metrics._examples import Predictive, check_labels, example_weights


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

    def __call__(self, predictive: Predictive, targets: Targets, weights: Any = None) -> Any:
        """The metric of one predictive."""
        check_labels(predictive, targets, weights)
        numbers = self.each(predictive, targets)
        num = jax.tree.leaves(numbers)[0].shape[0]
        return self.summary(numbers, example_weights(weights, num))
