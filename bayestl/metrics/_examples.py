"""What a metric asks of a predictive, and averages over the examples that count."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Targets
from bayestl.passes import check_weights


class Predictive(Protocol):
    """The part of :class:`bayestl.predict.Predictive` that metrics use."""

    def log_prob(self, targets: Targets) -> jax.Array: ...

    def check_targets(self, targets: Targets, mask: Any = None) -> None: ...

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


def check_targets(predictive: Predictive, targets: Targets, weights: Any = None) -> None:
    """Raise on targets that a predictive cannot score: labels outside the classes, which indexing would take for
    others, values outside the support of its likelihood, non-finite ones. Traced ones are let through.

    Examples of weight 0 may hold anything.

    Raises:
        ValueError: such targets; negative or non-finite weights, or another number of them.
        TypeError: float labels.
    """
    if weights is not None:
        check_weights(weights, jnp.shape(jax.tree.leaves(targets)[0])[0])
    if _tree.is_concrete((targets, weights)):
        predictive.check_targets(targets, weights)


def known_classes(values: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """Numbers (B,), NaN for labels outside the classes: traced ones cannot be refused, and count as no class."""
    return jnp.where((labels >= 0) & (labels < num_classes), values, jnp.nan)


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
