"""Class probabilities from elsewhere as a predictive."""

from __future__ import annotations

import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.likelihoods import given
from bayestl.predict._predictive import Predictive


def from_probabilities(probs: Numbers) -> Predictive:
    """Predictive with the given class probabilities, so that any classifier can be scored with the same metrics.

    Args:
        probs: (B, C), non-negative, rows sum to 1. They are kept as they are: equal ones stay equal, and a class of
            probability zero has log probability -inf.

    Raises:
        ValueError: another shape, or rows that are not probabilities.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.2, 0.8], [1.0, 0.0]]))
        >>> btl.metrics.accuracy(given, jnp.array([1, 0])).item()
        1.0
    """
    check_arguments(from_probabilities, locals())
    probs = jnp.asarray(probs, jnp.result_type(float))
    if probs.ndim != 2:
        raise ValueError(
            f"probs have shape {probs.shape}, but must be (B, C); for the probability p of class 1 give "
            "stack([1 - p, p], axis=-1)"
        )
    if _tree.is_concrete(probs):
        # Half precision, in which many networks give their softmax, sums to 1 within 1e-3 or so.
        wrong = jnp.any(~(probs >= 0), axis=1) | ~(jnp.abs(jnp.sum(probs, axis=1) - 1) < 1e-2)
        if bool(jnp.any(wrong)):
            row = int(jnp.argmax(wrong))
            raise ValueError(
                f"probs have {int(jnp.sum(wrong))} of {len(probs)} rows that are not probabilities (row {row}: "
                f"smallest {float(jnp.min(probs[row])):.3g}, sum {float(jnp.sum(probs[row])):.3g}); give softmax "
                "outputs, not logits"
            )
    return Predictive(probs[None], given(), jnp.zeros(1, probs.dtype))
