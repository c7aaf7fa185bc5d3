"""What a metric asks of a predictive, and averages over the examples that count."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp


class Predictive(Protocol):
    """The part of :class:`bayestl.predict.Predictive` that metrics use."""

    def log_prob(self, targets: Any) -> jax.Array: ...

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


def example_weights(mask: Any, num: int) -> jax.Array:
    """The mask as floats (num,); ones without a mask."""
    if mask is None:
        return jnp.ones(num)
    mask = jnp.asarray(mask)
    if mask.shape != (num,):
        raise ValueError(f"mask has shape {mask.shape}, but must have {(num,)}, one number per example")
    return mask.astype(float)


def masked_mean(each: jax.Array, mask: Any) -> jax.Array:
    """Mean over the examples (B,) that the mask keeps; NaN when it keeps none."""
    weights = example_weights(mask, each.shape[0])
    # Padding may hold anything, a NaN too, which no weight of 0 would remove.
    return jnp.sum(jnp.where(weights > 0, weights * each, 0)) / jnp.sum(weights)


def mean_over_outputs(values: jax.Array) -> jax.Array:
    """(B, ...) to (B,): the mean over the outputs of each example."""
    return values.reshape(values.shape[0], -1).mean(axis=1)


def class_probs(predictive: Predictive, targets: Any) -> tuple[jax.Array, jax.Array]:
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
