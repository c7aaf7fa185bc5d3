"""Whether the other methods of a distribution belong to its density."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayestl import _tree
from bayestl._types import Likelihood
from bayestl.likelihoods._base import base
from bayestl.likelihoods._classes import class_probs, has_known_density, is_binary, is_categorical
from bayestl.likelihoods._distribution import describe
from bayestl.likelihoods._methods import belongs, defining_class, own, predictive_distribution

# At how many examples a density over classes is summed, to see whether it is normalised.
_NUM_PROBES = 4


def check_inherited(family: type[dist.Distribution], name: str, use: str) -> None:
    """Refuse a user's distribution that overrides ``log_prob`` and inherits ``name`` (its mean, its samples).

    The inherited attribute was written for the density of the base class, and may be that of another distribution.

    Args:
        family: class of the distribution.
        name: attribute that is needed.
        use: what it is needed for, as the first word of the message.

    Raises:
        TypeError: in that case.
    """
    density = defining_class(family, "log_prob")
    if density is None or density.__module__.startswith(("numpyro.", "bayestl.")) or belongs(family, name, "log_prob"):
        return
    raise TypeError(
        f"{use} needs a normalised density, but {family.__name__} overrides log_prob and inherits {name!r} from "
        f"{getattr(defining_class(family, name), '__name__', 'nowhere')}, which may belong to another density; "
        f"define {name!r} to go with log_prob, or use kind=curvature.ggn for a curvature"
    )


def check_normalised(likelihood: Likelihood, outputs_shape: Any, use: str) -> None:
    """Refuse a user's density over classes that does not sum to 1, as with class weights in ``log_prob``.

    It is summed at a few outputs drawn from a normal distribution with a fixed key. Distributions of numpyro are not
    checked, nor is a likelihood that holds traced values.

    Raises:
        TypeError: a sum that is not 1.
    """
    if not _tree.is_concrete(likelihood):
        return
    with jax.ensure_compile_time_eval():
        probes = jax.tree.map(_probe, outputs_shape)
        one = base(predictive_distribution(likelihood, probes))
        family = type(one)
        if has_known_density(family) or not (is_binary(family) or is_categorical(family)):
            return
        totals = jnp.sum(class_probs(one), axis=-1)
        if not _tree.is_concrete(totals):
            return
        totals = np.asarray(totals)
    worst = totals.reshape(-1)[np.argmax(np.abs(totals - 1))]
    # Rounding of a sum of probabilities in float32 is far below this, and weights that matter are above it.
    if not abs(worst - 1) < 1e-3:
        raise TypeError(
            f"{use} needs a normalised density, but the probabilities of the {family.__name__} sum to {worst:.3g}; "
            "predict with the distribution that it was made from: joint.replace(likelihood=...), or give the "
            "likelihood a method predictive(outputs)"
        )


def check_samples(likelihood: Likelihood, outputs_shape: Any, use: str) -> None:
    """Refuse a likelihood whose distribution has samples that do not follow its density.

    Raises:
        TypeError: a likelihood that predicts with another distribution than it is trained on; a distribution that
            overrides ``log_prob`` alone; class probabilities that do not sum to 1.
    """
    if own(likelihood, "predictive") is not None:
        raise TypeError(
            f"{use} draws labels from the density, which has to be normalised, but a "
            f"{type(likelihood).__name__} likelihood is trained on another density than it predicts with; "
            "give kind=curvature.ggn"
        )
    check_inherited(describe(likelihood, outputs_shape).family, "sample", use)
    check_normalised(likelihood, outputs_shape, use)


def _probe(leaf: Any) -> jax.Array:
    """The same shapes for a few examples instead of B."""
    shape = tuple(np.shape(leaf))
    shape = (_NUM_PROBES, *shape[1:]) if shape else shape
    return jax.random.normal(jax.random.key(0), shape, leaf.dtype)
