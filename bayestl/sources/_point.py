"""The source as one set of weights."""

from __future__ import annotations

from bayestl._arguments import check_arguments
from bayestl._types import Params, Scalar
from bayestl.gaussians import Diagonal, isotropic


def point(params: Params, scale: Scalar | Params) -> Diagonal:
    """The L2-SP prior: ``N(theta_source, scale^2 I)``, what one published set of weights can say.

    As a penalty it is ``|theta - theta_source|^2 / (2 scale^2)``.

    Args:
        params: the source's weights.
        scale: standard deviation > 0, how far from the source the target may lie; one number, or one per leaf.

    Raises:
        ValueError: non-finite weights, or a scale that is not positive and finite.

    Reference:
        Li, Grandvalet, Davoine 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks".

    Example:
        >>> prior = btl.sources.point({"w": jnp.array([1.0, 2.0])}, scale=0.1)
        >>> print(prior.mean["w"])
        [1. 2.]
    """
    check_arguments(point, locals())
    return isotropic(params, scale)
