"""What is known about numpyro's own distributions, for likelihoods that are functions returning one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from bayestl._types import Outputs
from bayestl.likelihoods._base import base
from bayestl.likelihoods._bernoulli import BernoulliLogits, bernoulli_root
from bayestl.likelihoods._categorical import CategoricalLogits, categorical_root
from bayestl.likelihoods._columns import pulled_back
from bayestl.likelihoods._methods import defining_class
from bayestl.likelihoods._normal import normal_root


class Family(NamedTuple):
    """One density of numpyro, and a root of its Fisher information.

    Attributes:
        types: the classes with this density.
        parameters: distribution -> its parameters, as a pytree.
        root: parameters -> columns over them, leaves (K, B, ...).
    """

    types: tuple[type[dist.Distribution], ...]
    parameters: Callable[[Any], Any]
    root: Callable[[Any], Any]


FAMILIES = (
    Family((CategoricalLogits, dist.CategoricalLogits), lambda d: d.logits, categorical_root),
    Family((BernoulliLogits, dist.BernoulliLogits), lambda d: d.logits, bernoulli_root),
    Family((dist.Normal,), lambda d: (d.loc, jnp.broadcast_to(d.scale, jnp.shape(d.loc))), normal_root),
)


def has_density_of(cls: type, *types: type) -> bool:
    """Whether a distribution has the density of one of these classes: it is an instance of one, or of a subclass that
    inherits ``log_prob``. A subclass that overrides ``log_prob`` is another distribution."""
    density = defining_class(cls, "log_prob")
    return any(issubclass(cls, known) and density is defining_class(known, "log_prob") for known in types)


def family_of(cls: type) -> Family | None:
    """The family with the density of a distribution; None if it is not known."""
    return next((family for family in FAMILIES if has_density_of(cls, *family.types)), None)


def with_own_derivatives(distribution: Any) -> Any:
    """The same distribution, as our class if numpyro's has derivatives that are wrong at 0 or at infinity."""
    if isinstance(distribution, dist.Independent):
        inner = with_own_derivatives(distribution.base_dist)
        if inner is distribution.base_dist:
            return distribution
        return dist.Independent(inner, distribution.reinterpreted_batch_ndims, validate_args=False)
    for numpyros, ours in ((dist.CategoricalLogits, CategoricalLogits), (dist.BernoulliLogits, BernoulliLogits)):
        if type(distribution) is numpyros:
            return ours(distribution.logits, validate_args=False)
    return distribution


def root_of_distribution(fn: Callable[[Any], Any], outputs: Outputs) -> Any:
    """Columns, over the outputs, of the Fisher information of ``fn(outputs)``; None if its density is not known."""
    shown: list[type] = []
    jax.eval_shape(lambda outputs: shown.append(type(base(fn(outputs)))), outputs)
    family = family_of(shown[0])
    if family is None:
        return None
    return pulled_back(lambda outputs: family.parameters(base(fn(outputs))), family.root, outputs)
