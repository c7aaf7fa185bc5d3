"""Real targets whose noise depends on the inputs, from two outputs each."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl.likelihoods._columns import pulled_back
from bayestl.likelihoods._normal import normal_root
from bayestl.likelihoods._raw import at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeteroscedasticNormal:
    """Location and log scale in the last axis of the outputs. Made by :func:`heteroscedastic_normal`."""

    def __call__(self, outputs: Float[Array, "B ... 2"]) -> dist.Distribution:
        """Distribution over targets (B, ...), batch shape (B,)."""
        location, scale = _numbers(at_least_float32(outputs))
        return dist.Normal(location, scale, validate_args=False).to_event(location.ndim - 1)

    def hessian_root(self, outputs: Float[Array, "B ... 2"]) -> Float[Array, "K B ... 2"]:
        """The root of the Fisher information of location and log scale, ``diag(1 / scale^2, 2)``."""
        return pulled_back(_numbers, normal_root, at_least_float32(outputs))

    def moderated(self, mean: Float[Array, "B ... 2"], covariance: Float[Array, "B F F"]) -> Float[Array, "B ... 2"]:
        """The variance of the location added to that of the noise, which is taken at the mean of its logarithm."""
        mean = at_least_float32(mean)
        location, scale = _numbers(mean)
        variance = jnp.diagonal(covariance, axis1=-2, axis2=-1).reshape(mean.shape)[..., 0]
        return jnp.stack([location, 0.5 * jnp.log(variance + scale**2)], axis=-1)


def _numbers(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    shape = jax.tree.map(jnp.shape, outputs)
    if not isinstance(outputs, jax.Array) or outputs.ndim < 2 or outputs.shape[-1] != 2:
        raise ValueError(
            f"heteroscedastic_normal takes outputs (B, ..., 2), location and log scale, and got {shape}; end "
            "the network in two numbers for each target"
        )
    return outputs[..., 0], jnp.exp(outputs[..., 1])


def heteroscedastic_normal() -> HeteroscedasticNormal:
    """Likelihood for regression with a noise of each example's own: outputs (B, ..., 2), targets (B, ...).

    The last axis holds location and log standard deviation. Networks that give a pair instead, or one noise for all
    examples, go with :func:`normal` without a scale. Linearised predictions take the noise at the posterior's mean, as
    those of :func:`normal` do; ``predict.sampled`` carries its uncertainty too.

    Reference:
        Nix and Weigend 1994, "Estimating the Mean and Variance of the Target Probability Distribution".

    Example:
        >>> likelihood = btl.likelihoods.heteroscedastic_normal()
        >>> print(likelihood(jnp.array([[1.0, jnp.log(2.0)]])).variance)
        [4.]
    """
    return HeteroscedasticNormal()
