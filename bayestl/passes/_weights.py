"""How often each example counts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree


def check_weights(weights: Any, num: int, name: str = "weights", *, needs_one: bool = False) -> None:
    """Refuse weights that cannot say how often an example counts; traced ones are not checked.

    Args:
        weights: one number per example: 1 for an example that counts once, 0 for padding, 2 for one that counts as two
            rows would.
        num: how many examples there are.
        name: the argument's name in the message.
        needs_one: whether at least one weight must be above 0.

    Raises:
        ValueError: a shape other than (num,); negative or non-finite weights; with ``needs_one`` only zeros.

    Example:
        >>> btl.passes.check_weights(jnp.array([2.0, 1.0, 0.0]), 3)
    """
    if jnp.shape(weights) != (num,):
        raise ValueError(f"{name} has shape {jnp.shape(weights)}, but must have {(num,)}, one number per example")
    if not _tree.is_concrete(weights) or (isinstance(weights, jax.Array) and not weights.is_fully_addressable):
        return
    values = np.asarray(weights)
    bad = ~np.isfinite(values) | (values < 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{name} has negative or non-finite values ({int(bad.sum())} of {num}), the first {values[row]} in row "
            f"{row}; a weight says how often an example counts, 0 to leave it out"
        )
    if needs_one and not values.any():
        raise ValueError(f"{name} are 0 for all {num} examples, so none counts; give at least one above 0")
