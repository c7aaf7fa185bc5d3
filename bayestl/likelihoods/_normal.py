"""Real-valued targets with Gaussian noise, of given or of learned size."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key, Numbers, Outputs
from bayestl.likelihoods._columns import one_each, pulled_back
from bayestl.likelihoods._methods import GaussianNoise
from bayestl.likelihoods._raw import as_leaf, at_least_float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normal:
    """Gaussian noise around the outputs. Made by :func:`normal`.

    Attributes:
        scale: standard deviation of the noise, a scalar or an array of the event's shape; None if the outputs hold it.
    """

    scale: jax.Array | None

    def __call__(self, outputs: Outputs) -> dist.Distribution:
        """Distribution over targets (B, ...), batch shape (B,)."""
        location, scale = self._location_and_scale(at_least_float32(outputs))
        noisy = dist.Normal(location, scale, validate_args=False)
        return noisy.to_event(max(location.ndim - 1, 0))

    def hessian_root(self, outputs: Outputs) -> Any:
        """``1 / scale_j`` along output j; for a learned noise also ``sqrt 2`` along every log scale.

        This is the root of the Fisher information of mean and log scale, ``diag(1 / scale^2, 2)``. The Hessian itself
        depends on the targets, and is indefinite where they are far from the mean.

        Raises:
            ValueError: a ``log_scale`` without the batch axis of ``location``.
        """
        outputs = at_least_float32(outputs)
        if self.scale is not None:
            return one_each(1 / self._location_and_scale(outputs)[1])
        location, log_scale = outputs
        if jnp.ndim(log_scale) != jnp.ndim(location) or len(log_scale) != len(location):
            raise ValueError(
                f"log_scale has shape {jnp.shape(log_scale)}, but a curvature needs one per example, with the leading "
                f"axis of the location, {jnp.shape(location)}; broadcast it, as nets.with_log_scale does"
            )
        return pulled_back(self._location_and_scale, normal_root, outputs)

    def gaussian_noise(self, outputs: Outputs) -> GaussianNoise:
        """Location and ``scale^2``."""
        location, scale = self._location_and_scale(at_least_float32(outputs))
        return GaussianNoise(location, scale**2)

    def target_noise(self, key: Key, targets: jax.Array, power: Any) -> jax.Array | None:
        """Draws of ``N(0, scale^2 / power)``, 0 at power 0; None if the noise is learned."""
        if self.scale is None:
            return None
        size = self.scale * jnp.where(power > 0, jax.lax.rsqrt(jnp.where(power > 0, power, 1.0)), 0.0)
        return size * jax.random.normal(key, jnp.shape(targets), jnp.result_type(targets, jnp.float32))

    def _location_and_scale(self, outputs: Outputs) -> tuple[jax.Array, jax.Array]:
        if self.scale is None:
            if not (isinstance(outputs, list | tuple) and len(outputs) == 2):
                raise TypeError(
                    "normal() without a scale takes outputs (location, log_scale), but the outputs are "
                    f"{_described(outputs)}; learn the noise with nets.with_log_scale, or fix it with normal(scale)"
                )
            location, log_scale = outputs
            _check_broadcast("log_scale", log_scale.shape, "location", location.shape)
            return location, jnp.broadcast_to(jnp.exp(log_scale), location.shape)
        if not isinstance(outputs, jax.Array):
            raise TypeError(
                f"normal(scale=...) takes one array of locations (B, ...), but the outputs are {_described(outputs)}; "
                "for outputs (location, log_scale) use normal() without a scale"
            )
        _check_broadcast("scale", self.scale.shape, "event", outputs.shape[1:])
        return outputs, jnp.broadcast_to(self.scale, outputs.shape)


def normal_root(parameters: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """A root of the Fisher information of location and scale, ``diag(1 / scale^2, 2 / scale^2)``."""
    location, scale = parameters
    scale = jnp.broadcast_to(scale, location.shape)
    along = one_each(1 / scale)
    nothing = jnp.zeros_like(along)
    return jnp.concatenate([along, nothing]), jnp.concatenate([nothing, math.sqrt(2) * along])


def _described(outputs: Outputs) -> str:
    shapes = jax.tree.map(lambda x: tuple(jnp.shape(x)), outputs)
    return f"an array of shape {shapes}" if isinstance(outputs, jax.Array) else f"a {type(outputs).__name__}: {shapes}"


def _check_broadcast(name: str, shape: tuple[int, ...], target_name: str, target: tuple[int, ...]) -> None:
    fits = len(shape) <= len(target) and all(
        a in (1, b) for a, b in zip(reversed(shape), reversed(target), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{name} of shape {shape} does not broadcast to the {target_name} shape {target}; give one number, or an "
            "array of that shape"
        )


def normal(scale: Numbers | None = None) -> Normal:
    """Likelihood for regression with Gaussian noise, independent over the outputs of an example.

    The equation is ``log p(y | f) = sum_j log N(y_j; f_j, scale_j^2)``, in nats.

    Args:
        scale: standard deviation of the noise in the unit of the targets, positive: a number, or an array of the
            shape of one example's targets. It is a leaf, so it may be traced. Without it the noise is learned: the
            outputs must be a pair (location, log_scale), as from :func:`bayestl.nets.with_log_scale`, and ``log_scale``
            must broadcast to the shape of ``location``.

    Shapes:
        Outputs are (B,) for one target per example, else (B, ...) with everything after B in the event. A network whose
        outputs are (B, 1) for targets (B,) must drop that axis.

    Raises:
        ValueError: ``scale`` is not positive and finite.

    Example:
        >>> likelihood = btl.likelihoods.normal(scale=0.5)
        >>> likelihood(jnp.zeros((8, 2))).log_prob(jnp.zeros((8, 2))).shape
        (8,)
    """
    check_arguments(normal, locals())
    if scale is None:
        return Normal(None)
    noise = as_leaf(scale)
    if _tree.is_concrete(noise) and not bool(jnp.all(jnp.isfinite(noise) & (noise > 0))):
        bad = int(jnp.sum(~(jnp.isfinite(noise) & (noise > 0))))
        raise ValueError(
            f"scale has {bad} of {noise.size} values that are not positive and finite (smallest "
            f"{float(jnp.min(noise)):.3g}); it is the standard deviation of the noise"
        )
    return Normal(noise)
