"""A Gaussian belief about raw outputs, before a likelihood is put on it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl._types import Key, Likelihood, Outputs
from bayestl.predict._root import symmetric_root


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianOutputs:
    """Raw outputs of each of B examples as Gaussians ``N(f_b, V_b)``: what a link makes a predictive of.

    A mixture of S of them, one for each component of the posterior (1 for a Gaussian posterior). Each example by
    itself: what ties the outputs of two examples together is in :func:`linearized_joint`.

    Attributes:
        mean: f, raw outputs, leaves (S, B, ...).
        covariance: V, (S, B, F, F) for F numbers in an example's outputs, in the order of ``jax.tree.leaves``, each
            leaf in row-major order.
        likelihood: outputs to a numpyro distribution.
        log_weights: (S,), log w, normalised.
    """

    mean: Any
    covariance: Float[Array, "S B F F"]
    likelihood: Likelihood
    log_weights: Float[Array, " S"]

    @property
    def variance(self) -> Any:
        """The diagonals of V, leaves (S, B, ...)."""
        return unflat(jnp.diagonal(self.covariance, axis1=-2, axis2=-1), self.mean, 2)

    def sample(self, key: Key, num_samples: int) -> Any:
        """``num_samples`` draws of every component, of each example by itself: leaves (num_samples, S, B, ...)."""
        root = symmetric_root(self.covariance)
        noise = jax.random.normal(key, (num_samples, *root.shape[:-1]), root.dtype)
        deviations = jnp.einsum("sbij,nsbj->nsbi", root, noise, precision=jax.lax.Precision.HIGHEST)
        return jax.tree.map(jnp.add, self.mean, unflat(deviations, self.mean, 2))


def unflat(flat: jax.Array, like: Any, lead: int) -> Any:
    """Vectors (..., F) as outputs whose leaves are those of ``like`` from axis ``lead`` on."""
    leaves, treedef = jax.tree.flatten(like)
    shapes = [leaf.shape[lead:] for leaf in leaves]
    ends = [0]
    for shape in shapes:
        ends.append(ends[-1] + math.prod(shape))
    parts = zip(shapes, ends[:-1], ends[1:], strict=True)
    new = [flat[..., start:end].reshape(*flat.shape[:-1], *shape) for shape, start, end in parts]
    return jax.tree.unflatten(treedef, new)


def flat(outputs: Outputs, lead: int) -> jax.Array:
    """Outputs as vectors (..., F): the axes of every leaf from ``lead`` on, one leaf after another."""
    leaves = [x.reshape(*x.shape[:lead], -1) for x in jax.tree.leaves(outputs)]
    return jnp.concatenate(leaves, axis=-1)
