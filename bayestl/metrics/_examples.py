"""What a metric asks of a predictive, and averages over the examples that count."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._types import Targets
from bayestl.passes import check_weights


class Predictive(Protocol):
    """The part of :class:`bayestl.predict.Predictive` that metrics use."""

    def log_prob(self, targets: Targets) -> jax.Array: ...

    @property
    def mean(self) -> jax.Array: ...

    def cdf(self, values: Any) -> jax.Array: ...

    def normal_components(self) -> tuple[jax.Array, jax.Array]: ...

    @property
    def probs(self) -> jax.Array: ...

    @property
    def log_weights(self) -> jax.Array: ...

    @property
    def is_classification(self) -> bool: ...

    @property
    def is_normal(self) -> bool: ...


def example_weights(weights: Any, num: int) -> jax.Array:
    """The weights as floats (num,); ones where there are none."""
    if weights is None:
        return jnp.ones(num)
    check_weights(weights, num)
    return jnp.asarray(weights).astype(float)


def weighted_mean(each: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean over the examples (B,), each counted by its weight; NaN where none counts."""
    # Padding may hold anything, a NaN too, which no weight of 0 would remove.
    return jnp.sum(jnp.where(weights > 0, weights * each, 0)) / jnp.sum(weights)


def mean_over_outputs(values: jax.Array) -> jax.Array:
    """(B, ...) to (B,): the mean over the outputs of each example."""
    return values.reshape(values.shape[0], -1).mean(axis=1)


def check_labels(predictive: Predictive, targets: Targets, weights: Any = None) -> None:
    """Raise on labels outside the classes, which indexing would take for others; traced ones are let through.

    Examples of weight 0 may hold anything.

    Raises:
        ValueError: labels outside 0, ..., C - 1.
    """
    if not predictive.is_classification or not _tree.is_concrete((targets, weights)):
        return
    shape = jax.eval_shape(lambda given: given.probs, predictive).shape
    num_classes = 2 if len(shape) == 1 else shape[1]
    labels = np.asarray(targets)
    counts = np.ones(labels.shape, bool) if weights is None else np.asarray(weights) > 0
    if counts.shape != labels.shape or labels.dtype.kind not in "iub":
        return  # which the metric refuses in its own words
    outside = counts & ((labels < 0) | (labels >= num_classes))
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"{int(outside.sum())} of {int(counts.sum())} targets lie outside the classes 0 to {num_classes - 1}, the "
            f"first {labels[row]} in row {row}; number the classes from 0, or give such examples the weight 0"
        )


def class_probs(predictive: Predictive, targets: Targets) -> tuple[jax.Array, jax.Array]:
    """Probabilities (B, C) and labels (B,); a binary predictive becomes one of two classes."""
    probs = predictive.probs
    if probs.ndim == 1:
        probs = jnp.stack([1 - probs, probs], axis=-1)
    targets = jnp.asarray(targets)
    check_shape(targets, probs.shape[:1])
    if not (jnp.issubdtype(targets.dtype, jnp.integer) or targets.dtype == jnp.bool_):
        raise TypeError(f"targets have dtype {targets.dtype}, but labels are integers; convert them with astype(int)")
    return probs, targets.astype(int)


def check_shape(targets: jax.Array, shape: tuple[int, ...]) -> None:
    """Raise where targets would broadcast against the predictive."""
    if targets.shape != shape:
        raise ValueError(
            f"targets have shape {targets.shape}, but the predictive is over {shape}; give one per example"
        )
