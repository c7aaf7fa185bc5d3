"""What a likelihood's distribution looks like, without computing it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist

from bayestl._types import Likelihood


class Description(NamedTuple):
    """Shapes and kind of the distribution that a likelihood gives.

    Attributes:
        family: class of the distribution of one output.
        batch_shape: must be (B,).
        event_shape: shape of one example's target.
        is_discrete: whether targets are integers.
        is_independent: whether the numbers in one example's target are independent given the outputs.
    """

    family: type[dist.Distribution]
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    is_discrete: bool
    is_independent: bool


def base(distribution: dist.Distribution) -> Any:
    """The distribution of one output, where the event is made of independent ones."""
    return base(distribution.base_dist) if isinstance(distribution, dist.Independent) else distribution


def describe(likelihood: Likelihood, outputs_shape: Any) -> Description:
    """The description of ``likelihood(outputs)``, from the outputs' shapes alone; may be called while tracing."""
    found = []

    def record(outputs: Any) -> None:
        distribution = likelihood(outputs)
        if not isinstance(distribution, dist.Distribution):
            raise TypeError(
                f"the likelihood must give a numpyro distribution, but gives {type(distribution).__name__}; see "
                "likelihoods.from_function"
            )
        found.append(
            Description(
                type(base(distribution)),
                tuple(distribution.batch_shape),
                tuple(distribution.event_shape),
                bool(distribution.is_discrete),
                not base(distribution).event_shape,
            )
        )

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), outputs_shape)
    jax.eval_shape(record, shapes)
    return found[0]
