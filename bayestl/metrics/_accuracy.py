"""How often the most probable class is the right one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl.metrics._examples import Predictive, class_probs, example_weights, masked_mean


def accuracy(predictive: Predictive, targets: Any, mask: Any = None) -> jax.Array:
    """Share of examples whose most probable class is the target (micro average).

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        mask: None, or (B,), 1 for a real example and 0 for padding; NaN comes out when all are padding.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.2, 0.8], [0.6, 0.4]]))
        >>> btl.metrics.accuracy(given, jnp.array([1, 1])).item()
        0.5
    """
    probs, labels = class_probs(predictive, targets)
    return masked_mean((jnp.argmax(probs, axis=-1) == labels).astype(probs.dtype), mask)


def macro_accuracy(predictive: Predictive, targets: Any, mask: Any = None) -> jax.Array:
    """Mean over classes of the share of their examples that are found, ``1/K sum_c recall_c``: balanced accuracy.

    Every class counts alike, however rare; the K classes are those that occur in the targets.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        mask: None, or (B,), 1 for a real example and 0 for padding; NaN comes out when all are padding.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]]))
        >>> btl.metrics.macro_accuracy(given, jnp.array([1, 0, 1])).item()
        0.75
    """
    probs, labels = class_probs(predictive, targets)
    weights = example_weights(mask, labels.shape[0])
    correct = jnp.argmax(probs, axis=-1) == labels
    empty = jnp.zeros(probs.shape[1], weights.dtype)
    num_examples = empty.at[labels].add(weights)
    num_correct = empty.at[labels].add(jnp.where(correct, weights, 0))
    occurs = num_examples > 0
    return jnp.sum(jnp.where(occurs, num_correct / jnp.where(occurs, num_examples, 1), 0)) / jnp.sum(occurs)
