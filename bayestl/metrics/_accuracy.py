"""How often the most probable class is the right one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Targets
from bayestl.metrics._examples import Predictive, class_probs, known_classes, weighted_mean
from bayestl.metrics._metric import Metric


def accuracy(predictive: Predictive, targets: Targets, weights: Numbers | None = None) -> jax.Array:
    """Share of examples whose most probable class is the target (micro average).

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.2, 0.8], [0.6, 0.4]]))
        >>> btl.metrics.accuracy(given, jnp.array([1, 1])).item()
        0.5
    """
    check_arguments(accuracy, locals())
    return ACCURACY(predictive, targets, weights)


def macro_accuracy(predictive: Predictive, targets: Targets, weights: Numbers | None = None) -> jax.Array:
    """Mean over classes of the share of their examples that are found, ``1/K sum_c recall_c``: balanced accuracy.

    Every class counts alike, however rare; the K classes are those that occur in the targets.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]]))
        >>> btl.metrics.macro_accuracy(given, jnp.array([1, 0, 1])).item()
        0.75
    """
    check_arguments(macro_accuracy, locals())
    return MACRO_ACCURACY(predictive, targets, weights)


def _is_right(predictive: Predictive, targets: Targets) -> jax.Array:
    probs, labels = class_probs(predictive, targets)
    return known_classes((jnp.argmax(probs, axis=-1) == labels).astype(probs.dtype), labels, probs.shape[1])


def _is_right_and_label(predictive: Predictive, targets: Targets) -> tuple[jax.Array, jax.Array]:
    return _is_right(predictive, targets), jnp.asarray(targets).astype(int)


def _mean_recall(each: tuple[jax.Array, jax.Array], weights: jax.Array) -> jax.Array:
    right, labels = each
    # Runs of equal labels, so that the number of classes need not be known. Padding has weight 0 in any run.
    order = jnp.argsort(labels)
    right, labels, weights = right[order], labels[order], weights[order]
    num = len(labels)
    run = jnp.cumsum(jnp.concatenate([jnp.zeros(1, int), (labels[1:] != labels[:-1]).astype(int)]))
    occurring = jax.ops.segment_sum(weights, run, num, indices_are_sorted=True)
    right = jax.ops.segment_sum(jnp.where(weights > 0, weights * right, 0), run, num, indices_are_sorted=True)
    occurs = occurring > 0
    return jnp.sum(jnp.where(occurs, right / jnp.where(occurs, occurring, 1), 0)) / jnp.sum(occurs)


ACCURACY = Metric("accuracy", _is_right, weighted_mean)
MACRO_ACCURACY = Metric("macro_accuracy", _is_right_and_label, _mean_recall)
