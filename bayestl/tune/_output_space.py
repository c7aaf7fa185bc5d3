"""A likelihood at raw outputs, in float64: log densities, gradients, and roots of Hessians with their inverses."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
    leaves, treedef = jax.tree.flatten(outputs)
    layout = _Layout(treedef, tuple(x.shape[1:] for x in leaves))
    targets = jax.tree.map(np.asarray, targets)

    def in_float64(program: Callable[..., jax.Array]) -> Callable[[np.ndarray], np.ndarray]:
        def evaluated(values: np.ndarray) -> np.ndarray:
            with jax.enable_x64(True):
                return np.asarray(program(static, layout, arrays, np.asarray(values, np.float64), targets), np.float64)

        return evaluated

    return OutputSpace(flattened(outputs), in_float64(_log_probs), in_float64(_slopes), in_float64(_roots))


def _lifted(x: Any) -> Any:
    is_number = isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.floating)
    return np.asarray(x, np.float64) if is_number else x


class _Layout(NamedTuple):
    """How F numbers are an example's outputs.

    Attributes:
        treedef: their tree.
        shapes: of one example, leaf by leaf.
    """

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]

    def outputs(self, values: jax.Array) -> Outputs:
        """Numbers (N, F) as leaves (N, ...)."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts = jnp.split(values, ends, -1)
        return jax.tree.unflatten(
            self.treedef, [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        )


def flattened(outputs: Outputs) -> np.ndarray:
    """Numbers of N examples, leaves (N, ...), as (N, F) in float64."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(outputs)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], -1)


@partial(jax.jit, static_argnums=(0, 1))
def _log_probs(static: Static, layout: _Layout, arrays: list[Any], values: jax.Array, targets: Targets) -> jax.Array:
    """Log densities, (G, N)."""
    likelihood = static.combine(arrays)
    return jax.vmap(lambda z: likelihood(layout.outputs(z)).log_prob(targets))(values)


@partial(jax.jit, static_argnums=(0, 1))
def _slopes(static: Static, layout: _Layout, arrays: list[Any], values: jax.Array, targets: Targets) -> jax.Array:
    """Gradients of minus the log densities, (G, N, F)."""
    likelihood = static.combine(arrays)
    return jax.grad(
        lambda values: -jnp.sum(jax.vmap(lambda z: likelihood(layout.outputs(z)).log_prob(targets))(values))
    )(values)


@partial(jax.jit, static_argnums=(0, 1))
def _roots(static: Static, layout: _Layout, arrays: list[Any], values: jax.Array, targets: Targets) -> jax.Array:
    """Roots of Hessians, (G, N, F, K)."""
    likelihood = static.combine(arrays)

    def of_one(values: jax.Array) -> jax.Array:
        columns = jax.tree.leaves(likelihoods.hessian_root(likelihood, layout.outputs(values), targets))  # (K, N, ...)
        return jnp.moveaxis(jnp.concatenate([x.reshape(*x.shape[:2], -1) for x in columns], -1), 0, -1)

    return jax.vmap(of_one)(values)
