"""Several sources, of which one is right and nobody knows which."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key, Numbers, Params
from bayestl.gaussians import Gaussian


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class SourceMixture:
    """A mixture of Gaussians as a prior: ``p(theta) = sum_m w_m N(theta; mu_m, Sigma_m)``. Made by :func:`mixture`.

    Attributes:
        components: Gaussians over one tree.
        log_weights: normalised, (M,).
    """

    components: tuple[Gaussian, ...]
    log_weights: jax.Array

    @property
    def mean(self) -> Params:
        """The mean of the mixture, which may lie where none of its components does."""
        weights = jnp.exp(self.log_weights)
        return _tree.columns_mv(_stacked([c.mean for c in self.components]), weights)

    @property
    def variance(self) -> Params:
        """The marginal variances of the mixture."""
        mean, weights = self.mean, jnp.exp(self.log_weights)
        seconds = [
            jax.tree.map(lambda v, m, middle: v + (m - middle) ** 2, c.variance, c.mean, mean) for c in self.components
        ]
        return _tree.columns_mv(_stacked(seconds), weights)

    def log_prob(self, params: Params) -> jax.Array:
        """Log density at ``params`` in nats, a scalar."""
        check_arguments(SourceMixture.log_prob, locals())
        return self.components[0].log_prob(params) + jax.nn.logsumexp(self._relative(params))

    def responsibilities(self, params: Params) -> jax.Array:
        """How probable each source is given these parameters, (M,), of sum 1."""
        return jax.nn.softmax(self._relative(params))

    def sample(self, key: Key, num_samples: int) -> Params:
        """``num_samples`` draws, the component of each by weight; leaves have a leading axis of that length."""
        check_arguments(SourceMixture.sample, locals())
        pick, *keys = jax.random.split(key, len(self.components) + 1)
        chosen = jax.random.categorical(pick, self.log_weights, shape=(num_samples,))
        draws = [c.sample(k, num_samples) for c, k in zip(self.components, keys, strict=True)]
        return jax.tree.map(lambda *xs: jnp.stack(xs)[chosen, jnp.arange(num_samples)], *draws)

    def _relative(self, params: Params) -> jax.Array:
        """Log weight and log density of each component less the log density of the first, (M,).

        As differences of distances and of log determinants: of millions of parameters the log densities themselves
        differ by less than float32 resolves of them.
        """
        first = self.components[0]
        distance, log_det = first.squared_mahalanobis(params), first.log_det_covariance()
        differences = [
            (c.squared_mahalanobis(params) - distance) + (c.log_det_covariance() - log_det) for c in self.components
        ]
        return self.log_weights - 0.5 * jnp.stack(differences)

    def __repr__(self) -> str:
        shares = ", ".join(f"{w:.3g}" for w in np.exp(self.log_weights)) if _tree.is_concrete(self.log_weights) else ""
        return f"SourceMixture({len(self.components)} sources, weights [{shares}])"


def mixture(components: Sequence[Gaussian], weights: Numbers | None = None) -> SourceMixture:
    """A prior over several sources of which one is right: the target's data decide which.

    Near one source its density is that source's, log its weight; in between the nearest source pulls. MAP under it
    follows one source, the one that ``responsibilities`` names at the mode, so start it from each source in turn, and
    take the best log joint. It has no closed-form divergence: :func:`bayestl.infer.mean_field_vi` takes draws.

    Args:
        components: M >= 1 Gaussians over one tree.
        weights: (M,), prior probabilities of the sources, above 0; they are normalised. By default equal.

    Raises:
        TypeError: a component that is no Gaussian.
        ValueError: none at all, structures that differ, weights that are not (M,) positive numbers.

    Example:
        >>> sources = [btl.gaussians.isotropic({"w": jnp.full(3, m)}, scale=1.0) for m in (0.0, 4.0)]
        >>> prior = btl.sources.mixture(sources, weights=[0.9, 0.1])
        >>> print(np.asarray(prior.responsibilities({"w": jnp.full(3, 2.0)})).round(3))
        [0.9 0.1]
    """
    check_arguments(mixture, locals())
    components = tuple(components)
    check_sources("mixture", components)
    num = len(components)
    weights = jnp.full(num, 1 / num) if weights is None else jnp.asarray(weights, jnp.result_type(float))
    if weights.shape != (num,):
        raise ValueError(f"weights has shape {weights.shape}; give one number per source, ({num},)")
    if _tree.is_concrete(weights):
        _tree.check_positive("weights", weights, "leave out a source of weight 0")
    return SourceMixture(components, jnp.log(weights) - jnp.log(jnp.sum(weights)))


def check_sources(function: str, components: tuple[Any, ...]) -> None:
    """Raise unless there is at least one Gaussian, and all are over one tree."""
    if not components:
        raise ValueError(f"{function} needs at least one source")
    for number, component in enumerate(components):
        if not isinstance(component, Gaussian):
            raise TypeError(
                f"source {number} of {function} is a {type(component).__name__}; give a Gaussian, as by sources.point"
            )
        fix = "bring them to one tree first, with sources.extend or gaussians.by_path"
        _tree.check_same_structure(f"source {number}", component.mean, "source 0", components[0].mean, fix)


def _stacked(trees: Sequence[Params]) -> Params:
    return jax.tree.map(lambda *leaves: jnp.stack(jnp.broadcast_arrays(*leaves)), *trees)
