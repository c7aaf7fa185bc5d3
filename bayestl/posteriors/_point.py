"""All mass on one set of parameters."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._types import Key, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Point:
    """All mass on one set of parameters, as MAP gives.

    Attributes:
        params: the parameters.

    Example:
        >>> btl.Point({"w": jnp.ones(2)}).sample(jax.random.key(0), 3)["w"].shape
        (3, 2)
    """

    params: Params

    def sample(self, key: Key, num_samples: int) -> Params:
        """``num_samples`` copies; leaves have a leading axis of that length."""
        check_arguments(Point.sample, locals())
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_samples, *x.shape)), self.params)
