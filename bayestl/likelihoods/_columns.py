"""Columns in output space, as roots of matrices that are block diagonal over examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl._types import Outputs


def one_each(root: Float[Array, "B ..."]) -> Float[Array, "K B ..."]:
    """A column for every number in an example's event, zero in all others."""
    size = math.prod(root.shape[1:])
    eye = jnp.eye(size, dtype=root.dtype).reshape(size, 1, *root.shape[1:])
    return eye * root


def pulled_back(parameters: Callable[[Any], Any], root: Callable[[Any], Any], outputs: Outputs) -> Any:
    """Columns over the outputs, leaves (K, B, ...), from those over a distribution's parameters.

    Args:
        parameters: outputs (B, ...) -> parameters, for which ``root`` is known.
        root: parameters -> columns over the parameters, leaves (K, B, ...).
        outputs: the outputs at which to take them.
    """
    values, pull_back = jax.vjp(parameters, outputs)
    columns = jax.tree.map(lambda c, v: c.astype(v.dtype), root(values), values)
    return jax.vmap(lambda column: pull_back(column)[0])(columns)
