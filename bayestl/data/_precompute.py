"""What a fixed function gives for many inputs, computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._types import Inputs


def precompute(function: Callable[[Any], Any], inputs: Inputs, *, batch_size: int = 64) -> Any:
    """``function(inputs)`` for many inputs, some at a time, by one compiled program.

    For the features of a body that stays as it is: computed once, they are the data set of what comes after it, and no
    step pays for the body again. They take N times the bytes of one example's features, on the host. Augmentation
    belongs before the body: precompute some augmented copies of every picture, and give ``num_data`` without them.

    Args:
        function: inputs (B, ...) -> outputs, pytrees of arrays with a leading axis B; each example by itself, so no
            batch normalisation by the batch's own statistics.
        inputs: a pytree of arrays with a leading axis N.
        batch_size: how many are in the function at once, >= 1.

    Returns:
        NumPy arrays, leading axis N.

    Raises:
        ValueError: no inputs, leading axes that differ, or a batch_size below 1.

    Example:
        >>> body = btl.nets.mlp(jax.random.key(0), (3, 4))
        >>> btl.data.precompute(lambda x: body(body.params, x), jnp.ones((100, 3))).shape
        (100, 4)
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give at least 1")
    sizes = {len(x) for x in jax.tree.leaves(inputs)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"inputs have leading axes of lengths {sorted(sizes)}; give arrays of one length, at least 1")
    (num,), run = sizes, jax.jit(lambda x: function(x))
    # The last batch is filled up with repetitions, so that there is one shape to compile for.
    rows = np.minimum(np.arange(-(-num // batch_size) * batch_size), num - 1).reshape(-1, batch_size)
    parts = [jax.tree.map(np.asarray, run(jax.tree.map(lambda x: jnp.asarray(x[each]), inputs))) for each in rows]  # noqa: B023
    return jax.tree.map(lambda *xs: np.concatenate(xs)[:num], *parts)
