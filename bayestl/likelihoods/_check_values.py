"""Whether the values of the targets are possible under the likelihood."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Likelihood, Numbers, Outputs, Targets
from bayestl.likelihoods._base import base
from bayestl.likelihoods._check_shapes import (
    check_is_array,
    check_targets_dtype,
    check_targets_shape,
    is_array,
)
from bayestl.likelihoods._distribution import Description, describe


@dataclasses.dataclass(frozen=True)
class TargetCheck:
    """A check of targets, block by block, in numpy alone: compiled programs may wait for it.

    Made by :func:`target_check`.

    Attributes:
        description: that of the likelihood's distribution.
        support: the numpyro constraint that says which numbers in a target are possible, its bounds in numpy; None if
            it is not known, or depends on the outputs.
    """

    description: Description
    support: Any

    def __call__(self, targets: Targets, mask: Any = None, *, rows: np.ndarray | None = None) -> None:
        """Refuse targets (N, ...) that are impossible under the likelihood; rows with mask 0 may hold anything.

        Targets that are traced, or that are not one array, are not checked.

        Args:
            targets: (N, ...).
            mask: None or (N,).
            rows: (N,), which rows of the data set they are, for the message; None for 0, ..., N - 1.

        Raises:
            ValueError: targets of another shape per example, non-finite, or outside the support (labels outside the
                classes).
            TypeError: float targets for a discrete distribution.
        """
        check_is_array(self.description, targets)
        if not is_array(targets) or not _tree.is_concrete((targets, mask)):
            return
        places, values = _counted(np.asarray(targets), mask)
        check_targets_shape(values.shape, values.shape[:1] + self.description.event_shape)
        check_targets_dtype(self.description, values)
        if not self.description.is_discrete:
            _check_finite(values)
        if self.support is None or not values.size:
            return
        # int64: an unsigned or short label must not wrap around when it is compared with the bounds.
        inside = np.asarray(self.support(values.astype(np.int64) if self.description.is_discrete else values))
        inside = np.asarray(np.all(inside.reshape(len(values), -1), axis=1))
        if not inside.all():
            named = places if rows is None else rows[places]
            raise ValueError(_support_message(named, values, inside, self.description, self.support))


def target_check(likelihood: Likelihood, outputs_shape: Outputs) -> TargetCheck:
    """A check that targets are possible under a likelihood: traced once, cheap from then on.

    It takes memory of the order of the targets that are checked, for any number of classes.

    Args:
        likelihood: outputs to a numpyro distribution.
        outputs_shape: outputs for B examples, as arrays or ``jax.ShapeDtypeStruct``.

    Example:
        >>> outputs = jax.ShapeDtypeStruct((32, 3), jnp.float32)
        >>> check = btl.likelihoods.target_check(btl.likelihoods.categorical(), outputs)
        >>> check(np.array([0, 2, -1]), mask=np.array([1, 1, 0]))
        >>> try:
        ...     check(np.array([0, 3]))
        ... except ValueError as error:
        ...     print(str(error).split(";")[0])
        1 of 2 targets lie outside the support of the likelihood: they go from 0 to 3, valid is 0 to 2
    """
    check_arguments(target_check, locals())
    description = describe(likelihood, outputs_shape)
    # Targets that are known may be checked from inside a traced function, where operations would be traced as well.
    with jax.ensure_compile_time_eval():
        support = _support(likelihood, jax.tree.map(lambda x: _one_example(x, description.batch_shape), outputs_shape))
    return TargetCheck(description, support)


def _support(likelihood: Likelihood, one: Any) -> Any:
    """Of the numbers in one target, given outputs of one example; None where it is not known."""
    distribution = likelihood(one)
    if base(distribution).support is None:
        return None
    support, elsewhere = distribution.support, likelihood(jax.tree.map(lambda x: x + 1, one)).support
    # Bounds that depend on the outputs say nothing about targets until there are outputs.
    if not _tree.is_concrete((support, elsewhere)) or support != elsewhere:
        return None
    # Independent numbers are looked at one by one: numpyro would gather them by a function of JAX.
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return jax.tree.map(np.asarray, support)


def check_values(likelihood: Likelihood, outputs_shape: Outputs, targets: Targets, mask: Numbers | None = None) -> None:
    """The part of :func:`check` that looks at the targets' values, for a batch or for a whole data set at once.

    Targets are not checked if they are traced, if they are not one array, or if the likelihood's support depends on the
    outputs. For many blocks of one data set, make a :func:`target_check` once.

    Args:
        likelihood: outputs to a numpyro distribution.
        outputs_shape: outputs for B examples, as arrays or ``jax.ShapeDtypeStruct``.
        targets: (N, ...); N need not be B.
        mask: None or (N,); rows with 0 may hold anything.

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
    check_arguments(check_values, locals())
    if _tree.is_concrete((targets, mask)):
        target_check(likelihood, outputs_shape)(targets, mask)


def check_real_targets(like: jax.Array, targets: Targets, mask: Numbers | None = None) -> None:
    """Refuse targets that do not have the shape of ``like`` per example, or are not finite, except in masked rows.

    Raises:
        ValueError: in these cases.
    """
    if not is_array(targets):
        raise TypeError(f"targets are a {type(targets).__name__}; give one array (B, ...) with one row per example")
    if not _tree.is_concrete((targets, mask)):
        return
    values = np.asarray(targets)
    check_targets_shape(values.shape, values.shape[:1] + tuple(like.shape[1:]))
    _check_finite(_counted(values, mask)[1])


def _counted(values: np.ndarray, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows that the mask leaves in, and these rows."""
    if values.ndim == 0:
        raise ValueError(f"targets are the single number {values}; give an array (B, ...) with one row per example")
    if mask is None:
        return np.arange(len(values)), values
    if np.shape(mask) != values.shape[:1]:
        raise ValueError(
            f"mask has shape {tuple(np.shape(mask))}, but must have {values.shape[:1]}, one number per example"
        )
    rows = np.flatnonzero(np.asarray(mask) > 0)
    return rows, values[rows]


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


def _support_message(
    rows: np.ndarray, values: np.ndarray, inside: np.ndarray, description: Description, support: Any
) -> str:
    fix = "transform the targets or take another distribution"
    if description.is_discrete:
        fix = "number the classes from 0, and give the network one output per class"
    return (
        f"{int(np.sum(~inside))} of {inside.size} targets lie outside the support of the likelihood: they go from "
        f"{values.min()} to {values.max()}, valid is {_valid_range(support)}; {fix} (the first is in row "
        f"{rows[np.argmin(inside)]})"
    )


def _valid_range(support: Any) -> str:
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if low is not None and high is not None:
        return f"{low} to {high}"
    return "0 or 1" if type(support).__name__ == "_Boolean" else repr(support)
