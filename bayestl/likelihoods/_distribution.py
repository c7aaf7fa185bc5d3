"""The shapes and kind of a likelihood's distribution, without computing it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist

from bayestl._applied import call_likelihood
from bayestl._types import Likelihood, Outputs
from bayestl.likelihoods._base import base
from bayestl.likelihoods._classes import is_binary, is_categorical
from bayestl.likelihoods._families import has_density_of
from bayestl.likelihoods._methods import predictive_distribution


class Description(NamedTuple):
    """Shapes and kind of the distribution that a likelihood returns.

    Attributes:
        family: class of the distribution of one output.
        batch_shape: must be (B,).
        event_shape: shape of one example's target.
        is_discrete: whether targets are integers; False if the distribution does not declare its support.
        is_independent: whether the numbers in one example's target are independent given the outputs.
        is_class: whether a target is one class per example, binary ones included.
        is_binary: whether every number in a target is a binary label.
        is_categorical: whether every number in a target is one of several classes.
        is_normal: whether every number in a target is normal given the outputs.
    """

    family: type[dist.Distribution]
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    is_discrete: bool
    is_independent: bool
    is_class: bool
    is_binary: bool
    is_categorical: bool
    is_normal: bool


def describe(likelihood: Likelihood, outputs_shape: Any) -> Description:
    """The description of ``likelihood(outputs)``, from the outputs' shapes alone; may be called while tracing."""
    return _described(likelihood, outputs_shape)


def describe_predictive(likelihood: Likelihood, outputs_shape: Any) -> Description:
    """The description of the distribution that the likelihood predicts with: that of ``predictive``, if it has one."""
    return _described(lambda outputs: predictive_distribution(likelihood, outputs), outputs_shape)


def _described(likelihood: Likelihood, outputs_shape: Any) -> Description:
    descriptions: list[Description] = []

    def record(outputs: Outputs) -> None:
        distribution = call_likelihood(lambda: likelihood(outputs), outputs)
        if not isinstance(distribution, dist.Distribution):
            raise TypeError(
                f"the likelihood must give a numpyro distribution, but gives {type(distribution).__name__}; see "
                "likelihoods.from_function"
            )
        descriptions.append(_description(distribution))

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jax.dtypes.result_type(x)), outputs_shape)
    jax.eval_shape(record, shapes)
    return descriptions[0]


def _description(distribution: dist.Distribution) -> Description:
    one = base(distribution)
    family = type(one)
    event_shape = tuple(distribution.event_shape)
    binary, categorical = is_binary(family), is_categorical(family)
    return Description(
        family=family,
        batch_shape=tuple(distribution.batch_shape),
        event_shape=event_shape,
        is_discrete=one.support is not None and bool(one.is_discrete),
        is_independent=not one.event_shape,
        is_class=(binary or categorical) and not event_shape,
        is_binary=binary,
        is_categorical=categorical,
        is_normal=has_density_of(family, dist.Normal),
    )
