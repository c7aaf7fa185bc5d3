"""Whether the values of the targets lie where the likelihood can give them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayestl import _tree
from bayestl._types import Likelihood
from bayestl.likelihoods._check_shapes import check_targets_dtype, check_targets_shape, is_array
from bayestl.likelihoods._distribution import base, describe


def check_values(likelihood: Likelihood, outputs_shape: Any, targets: Any) -> None:
    """The part of :func:`check` that looks at the targets' values, for a batch or for a whole data set at once.

    Targets that are traced, or that are not one array, are let through, and so are those of a likelihood whose
    support depends on the outputs. Memory is of the order of ``targets``, whatever the number of classes.

    Args:
        likelihood: outputs to a numpyro distribution.
        outputs_shape: outputs for B examples, as arrays or ``jax.ShapeDtypeStruct``.
        targets: (N, ...); N need not be B.

    Raises:
        ValueError: targets of another shape per example, non-finite, or outside the support (labels outside the
            classes).
        TypeError: float targets for a discrete distribution.

    Example:
        >>> outputs = jax.ShapeDtypeStruct((32, 10), jnp.float32)
        >>> try:
        ...     btl.likelihoods.check_values(btl.likelihoods.categorical(), outputs, np.arange(1000) % 11)
        ... except ValueError as error:
        ...     print(str(error).split(";")[0])
        90 of 1000 targets lie outside the support of the likelihood: they go from 0 to 10, valid is 0 to 9
    """
    if not is_array(targets) or not _tree.is_concrete(targets):
        return
    found = describe(likelihood, outputs_shape)
    values = np.asarray(targets)
    check_targets_shape(values.shape, values.shape[:1] + found.event_shape)
    check_targets_dtype(found, values)
    if not found.is_discrete:
        _check_finite(values)
    one = jax.tree.map(lambda x: _one_example(x, found.batch_shape), outputs_shape)
    distribution = likelihood(one)
    support = distribution.support
    # Bounds that move with the outputs say nothing about targets before there are outputs.
    if support is None or support != likelihood(jax.tree.map(lambda x: x + 1, one)).support:
        return
    # int64: an unsigned or short label must not wrap around the bounds that it is compared with.
    inside = np.asarray(support(values.astype(np.int64) if found.is_discrete else values))
    if not inside.all():
        raise ValueError(_support_message(values, inside, distribution))


def _one_example(leaf: Any, batch_shape: tuple[int, ...]) -> jax.Array:
    """Zeros for one example; a leaf without the batch axis (one noise level for all) keeps its shape."""
    shape = tuple(np.shape(leaf))
    return jnp.zeros((1, *shape[1:]) if shape[:1] == batch_shape else shape, leaf.dtype)


def _check_finite(values: np.ndarray) -> None:
    bad = int(np.sum(~np.isfinite(values))) if jnp.issubdtype(values.dtype, jnp.floating) else 0
    if bad:
        raise ValueError(
            f"targets hold {bad} non-finite of {values.size} values; drop those examples, or mask them (mask = 0)"
        )


def _support_message(values: np.ndarray, inside: np.ndarray, distribution: dist.Distribution) -> str:
    fix = "transform the targets or take another distribution"
    if distribution.is_discrete:
        fix = "number the classes from 0, and give the network one output per class"
    return (
        f"{int(np.sum(~inside))} of {inside.size} targets lie outside the support of the likelihood: they go from "
        f"{values.min()} to {values.max()}, valid is {_valid_range(base(distribution).support)}; {fix}"
    )


def _valid_range(support: Any) -> str:
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if low is not None and high is not None:
        return f"{low} to {high}"
    return "0 or 1" if type(support).__name__ == "_Boolean" else repr(support)
