"""The methods that a likelihood may have beyond its density, and whether they belong to it.

A likelihood is a function from outputs to a distribution. That alone is enough, since everything else has a default.
Where a likelihood has something better than the default, it defines it as a method in its own file. None is required:

* ``hessian_root(outputs)``: columns s_nj, leaves (K, B, ...), with ``sum_j s_nj s_nj^T`` the expected Hessian of
  ``-log p(y_n | f_n)`` in the outputs; None if it is not known. Default: automatic differentiation.
* ``moderated(mean, covariance)``: outputs (B, ...) whose distribution approximates the average over Gaussian outputs
  with that mean, leaves (B, ...), and covariance, (B, F, F); None if there are none. Default: quadrature, if an example
  has one output.
* ``gaussian_noise(outputs)``: a :class:`GaussianNoise`, if targets are the outputs plus Gaussian noise.
* ``target_noise(key, targets, power)``: noise to add to the targets of a randomised ensemble's member, with the
  covariance of the observation noise divided by ``power``.
* ``predictive(outputs)``: the normalised distribution of targets to predict with, if training uses another density
  (weighted, smoothed). Default: the likelihood's own distribution.
* ``outputs_are_logits = True``: outputs are logits of classes, and links for logits apply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from bayestl._applied import call_likelihood
from bayestl._arguments import check_arguments
from bayestl._types import Key, Likelihood, Outputs


class GaussianNoise(NamedTuple):
    """Targets as outputs plus independent Gaussian noise.

    Attributes:
        location: expected targets, (B, ...): the first leaf of the outputs.
        variance: variance of the noise, (B, ...).
    """

    location: Float[Array, "B ..."]
    variance: Float[Array, "B ..."]


def own(likelihood: Likelihood, name: str) -> Any:
    """The likelihood's own attribute ``name``; None if it has none that belongs to its density.

    The methods that a class inherits while it overrides ``__call__`` were written for another density, and do not
    count.
    """
    if defining_class(type(likelihood), name) is None:
        return None
    return getattr(likelihood, name) if belongs(type(likelihood), name, "__call__") else None


def belongs(cls: type, name: str, density: str) -> bool:
    """Whether the method ``name`` of a class was written together with, or after, its method ``density``."""
    method_of, density_of = defining_class(cls, name), defining_class(cls, density)
    return method_of is not None and density_of is not None and issubclass(method_of, density_of)


def defining_class(cls: type, name: str) -> type | None:
    """The class in whose body ``name`` is defined."""
    return next((base for base in cls.__mro__ if name in vars(base)), None)


def gaussian_noise(likelihood: Likelihood, outputs: Outputs) -> GaussianNoise | None:
    """The Gaussian noise around the outputs (B, ...); None for likelihoods of another kind.

    Example:
        >>> noise = btl.likelihoods.gaussian_noise(btl.likelihoods.normal(0.5), jnp.ones(3))
        >>> print(noise.location, noise.variance)
        [1. 1. 1.] [0.25 0.25 0.25]
    """
    check_arguments(gaussian_noise, locals())
    method: Callable[[Any], GaussianNoise] | None = own(likelihood, "gaussian_noise")
    return None if method is None else call_likelihood(lambda: method(outputs), outputs)


def target_noise(likelihood: Likelihood, key: Key, targets: jax.Array, power: Any) -> jax.Array:
    """Noise to add to targets, with the variance of the observation noise divided by ``power``; 0 at power 0.

    Args:
        likelihood: one whose noise does not depend on the outputs, such as ``normal(scale)``.
        key: randomness.
        targets: (N, ...).
        power: how many times the likelihood counts each example, >= 0.

    Raises:
        TypeError: a likelihood without such noise.

    Example:
        >>> noise = btl.likelihoods.target_noise(btl.likelihoods.normal(0.5), jax.random.key(0), jnp.zeros(10_000), 4)
        >>> print(f"{noise.std():.2f}")
        0.25
    """
    check_arguments(target_noise, locals())
    method: Callable[[Key, jax.Array, Any], jax.Array | None] | None = own(likelihood, "target_noise")
    noise = None if method is None else method(key, targets, power)
    if noise is None:
        raise TypeError(
            "noise on the targets needs a likelihood with additive noise of a given size, such as "
            f"likelihoods.normal(scale), and this one is {likelihood!r}; use random_anchors"
        )
    return noise


def predictive_distribution(likelihood: Likelihood, outputs: Outputs) -> Any:
    """The normalised distribution of targets to predict with: the likelihood's own, unless it has ``predictive``."""
    method: Callable[[Any], Any] | None = own(likelihood, "predictive")
    return likelihood(outputs) if method is None else method(outputs)


def has_logits(likelihood: Likelihood) -> bool:
    """Whether the raw outputs are logits of classes: one per class, or one for a binary label."""
    return bool(own(likelihood, "outputs_are_logits"))
