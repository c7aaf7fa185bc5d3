"""A whole data set as one batch."""

from __future__ import annotations

from typing import Any

import jax

from bayestl._types import Batch


def all_data(data: Any) -> Batch:
    """All examples of ``data`` as one batch.

    Raises:
        TypeError: data that are not in memory.
    """
    inputs, targets = getattr(data, "inputs", None), getattr(data, "targets", None)
    shapes_alone = any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves((inputs, targets)))
    if inputs is None or targets is None or shapes_alone:
        raise TypeError(
            f"data is a {type(data).__name__} that does not hold its inputs and targets; all of them are needed at "
            "once: give bayestl.data.arrays(inputs, targets)"
        )
    return Batch(inputs, targets)
