"""A prior whose scale is open."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.gaussians import Gaussian, diagonal


class Family(NamedTuple):
    """Priors that differ in one factor on their covariance.

    Attributes:
        name: in reports.
        prior: the prior at factor 1.
    """

    name: str
    prior: Gaussian


def isotropic_family(name: str, mean: Params) -> Family:
    """Independent parameters of one variance around ``mean``.

    Example:
        >>> btl.tune.isotropic_family("weight decay", {"w": jnp.zeros(3)}).prior.rescale(0.5).variance["w"].sum().item()
        1.5
    """
    check_arguments(isotropic_family, locals())
    return Family(name, diagonal(mean, jax.tree.map(lambda m: jnp.ones((), jnp.result_type(m)), mean)))
