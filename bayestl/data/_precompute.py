"""What a fixed function gives for many inputs, computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Batch, Data, Inputs
from bayestl.passes import Batches, batches, in_turn, num_inputs


def precompute(function: Callable[[Any], Any], inputs: Inputs | Data, *, batch_size: int = 64) -> Any:
    """``function(inputs)`` for many inputs, some at a time, by one compiled program.

    For the features of a body that stays as it is: computed once, they are the data set of what comes after it, and no
    step pays for the body again. They take N times the bytes of one example's features, on the host. Augmentation
    belongs before the body: precompute some augmented copies of every picture, and give
    ``num_data`` without them, with ``allow_other_size=True``.

    Args:
        function: inputs (B, ...) -> outputs, pytrees of arrays with a leading axis B; each example by itself, so no
            batch normalisation by the batch's own statistics.
        inputs: a pytree of arrays with a leading axis N; or a data set, held or read, whose inputs are taken in order.
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
    check_arguments(precompute, locals())
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give at least 1")
    if isinstance(inputs, Data | Batch | Batches):
        passes = batches(inputs, batch_size)
        num, each = passes.num_examples, (batch.inputs for batch in passes)
    else:
        num, each = num_inputs(inputs), in_turn(inputs, batch_size)
        if not num:
            raise ValueError("inputs hold no example; give arrays of one length, at least 1")
    run = jax.jit(lambda x: function(x))
    parts = [jax.tree.map(np.asarray, run(one)) for one in each]
    return jax.tree.map(lambda *xs: np.concatenate(xs)[:num], *parts)
