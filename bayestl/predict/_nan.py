"""Predictions that are not numbers are named where they come out."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._types import Inputs
from bayestl.passes import num_inputs


def warn_of_nan(predicted: Any, inputs: Inputs, axis: int) -> None:
    """Warn where what was computed of some inputs is NaN; while tracing, where there are no values, nothing is done.

    A warning and no error, since a network may well be made for inputs that are not known. Arrays that are spread over
    several processes are not looked at.

    Args:
        predicted: pytree of arrays.
        inputs: what it was computed of, leaves (B, ...).
        axis: which axis of the arrays is that of the B inputs.

    Warns:
        RuntimeWarning: a NaN, in the line that called the caller.
    """
    if not _tree.is_concrete((predicted, inputs)):
        return
    num = num_inputs(inputs)
    nan = _rows_with_nan(predicted, axis, num)
    if not nan.any():
        return
    row = int(np.argmax(nan))
    reason = "the network gives NaN there, or some parameters of the posterior are NaN"
    if _rows_with_nan(inputs, 0, num)[row]:
        reason = "this input holds NaN"
    warnings.warn(
        f"predictions for {nan.sum()} of {num} inputs are NaN, the first in row {row}: {reason}; their scores will be "
        "NaN too",
        RuntimeWarning,
        stacklevel=3,
    )


def _rows_with_nan(tree: Any, axis: int, num: int) -> np.ndarray:
    """Which of the positions 0, ..., num - 1 along an axis hold a NaN in some leaf, (num,) of bool."""
    rows = np.zeros(num, bool)
    for leaf in jax.tree.leaves(tree):
        is_here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        # What all examples share, such as one noise level, has no such axis.
        if is_here and jnp.issubdtype(leaf.dtype, jnp.inexact) and np.shape(leaf)[axis : axis + 1] == (num,):
            rows |= _of_leaf(leaf, axis)
    return rows


def _of_leaf(x: Any, axis: int) -> np.ndarray:
    on_host = not isinstance(x, jax.Array) or all(device.platform == "cpu" for device in x.devices())
    # On a CPU no copy is made, and nothing compiled; elsewhere one bit per input is brought over.
    return np.asarray(_reduced(np, np.asarray(x), axis) if on_host else _on_device(x, axis))


def _reduced(xp: Any, x: Any, axis: int) -> Any:
    return xp.isnan(x).any(axis=tuple(a for a in range(x.ndim) if a != axis))


_on_device = jax.jit(partial(_reduced, jnp), static_argnums=1)
