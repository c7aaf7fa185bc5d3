"""A likelihood at raw outputs, in float64: log densities, gradients, and roots of Hessians with their inverses."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, likelihoods
from bayestl._arguments import check_arguments
from bayestl._static import Static, partition
from bayestl._types import Likelihood, Outputs, Targets

# Singular values of a Hessian root below this share of its largest one, or below this number, are zero: those of a
# softmax, whose logits may all rise together. Probabilities down to 1e-14 have others of 1e-7.
_SHARE, _SMALLEST = 1e-10, 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class OutputSpace:
    """N examples at raw outputs of F numbers, with K columns of each Hessian root; float64 on the host.

    Attributes:
        outputs: z, (N, F).
        log_probs: outputs (G, N, F) to ``log p(y | z)``, (G, N).
        slopes: outputs (G, N, F) to the gradients of ``-log p(y | z)``, (G, N, F).
        roots_at: outputs (G, N, F) to roots L (G, N, F, K), L Lᵀ the Hessian.
    """

    outputs: np.ndarray
    log_probs: Callable[[np.ndarray], np.ndarray]
    slopes: Callable[[np.ndarray], np.ndarray]
    roots_at: Callable[[np.ndarray], np.ndarray]

    @functools.cached_property
    def gradients(self) -> np.ndarray:
        """g at these outputs, (N, F)."""
        return self.slopes(self.outputs[None])[0]

    @functools.cached_property
    def roots(self) -> np.ndarray:
        """L at these outputs, (N, F, K)."""
        return self.roots_at(self.outputs[None])[0]

    @functools.cached_property
    def residuals(self) -> np.ndarray:
        """e = L⁺ g, (N, K): the gradient in whitened outputs; ``L e = g`` where g lies in the range of L."""
        largest = np.linalg.norm(self.roots, 2, axis=(-2, -1))
        rcond = np.maximum(_SHARE, _SMALLEST / np.maximum(largest, _SMALLEST))
        return np.einsum("nkf,nf->nk", np.linalg.pinv(self.roots, rcond=rcond), self.gradients)


def output_space(likelihood: Likelihood, outputs: Outputs, targets: Targets) -> OutputSpace:
    """A likelihood at these outputs, leaves (N, ...), and targets, (N, ...)."""
    check_arguments(output_space, locals())
    likelihoods.check(likelihood, outputs, targets)
    _tree.check_finite("outputs", outputs)
    outputs = jax.tree.map(lambda x: np.asarray(x, np.float64), outputs)
    likelihood = jax.tree.map(_lifted, likelihood)
    arrays, static = partition(likelihood)
    flat, unflat = _flattened(outputs)
    targets = jax.tree.map(np.asarray, targets)

    def evaluated(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with jax.enable_x64(True):
            results = _densities(static, arrays, jax.vmap(unflat)(jnp.asarray(values)), targets)
            each, slopes = jax.tree.map(np.asarray, results)
        leading = np.shape(values)[:2]
        slopes = [x.reshape(*leading, -1) for x in jax.tree.leaves(slopes)]
        return np.asarray(each, np.float64), -np.concatenate(slopes, -1)

    def roots_at(values: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            columns = _roots(static, arrays, jax.vmap(unflat)(jnp.asarray(values)), targets)
            parts = [np.asarray(x, np.float64) for x in jax.tree.leaves(columns)]  # (G, K, N, ...)
        return np.moveaxis(np.concatenate([x.reshape(*x.shape[:3], -1) for x in parts], -1), 1, -1)

    return OutputSpace(flat, lambda z: evaluated(z)[0], lambda z: evaluated(z)[1], roots_at)


def _lifted(x: Any) -> Any:
    is_number = isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.floating)
    return np.asarray(x, np.float64) if is_number else x


def _flattened(outputs: Outputs) -> tuple[np.ndarray, Callable[[jax.Array], Any]]:
    """Outputs as (N, F), and the way back."""
    leaves, treedef = jax.tree.flatten(outputs)
    shapes = [x.shape[1:] for x in leaves]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def unflat(values: jax.Array) -> Any:
        parts = jnp.split(values, ends, -1)
        return jax.tree.unflatten(treedef, [p.reshape(-1, *s) for p, s in zip(parts, shapes, strict=True)])

    return flattened(outputs), unflat


def flattened(outputs: Outputs) -> np.ndarray:
    """Numbers of N examples, leaves (N, ...), as (N, F) in float64."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(outputs)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], -1)


@partial(jax.jit, static_argnums=0)
def _roots(static: Static, arrays: list[Any], outputs: Outputs, targets: Targets) -> Any:
    """Roots of Hessians, leaves (G, K, N, ...)."""
    likelihood = static.combine(arrays)
    return jax.vmap(lambda z: likelihoods.hessian_root(likelihood, z, targets))(outputs)


@partial(jax.jit, static_argnums=0)
def _densities(static: Static, arrays: list[Any], outputs: Outputs, targets: Targets) -> tuple[jax.Array, Any]:
    """Log densities (G, N) and their gradients in the outputs, leaves (G, N, ...)."""
    likelihood = static.combine(arrays)

    def total(outputs: Outputs) -> tuple[jax.Array, jax.Array]:
        each = jax.vmap(lambda z: likelihood(z).log_prob(targets))(outputs)
        return jnp.sum(each), each

    (_, each), slopes = jax.value_and_grad(total, has_aux=True)(outputs)
    return each, slopes
