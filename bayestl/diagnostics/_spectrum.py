"""The direction in which a Gaussian is widest."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl.gaussians import Gaussian


def widest_direction(gaussian: Gaussian, *, num_steps: int = 50) -> float:
    """The largest eigenvalue of a Gaussian's covariance, approached from below by the power method.

    Its inverse is the smallest eigenvalue of the precision. For a Laplace posterior, this is the direction in which the
    quadratic approximation reaches furthest from the mode, and can be trusted least.

    Args:
        gaussian: of any structure.
        num_steps: products with the covariance, >= 1.

    Example:
        >>> g = btl.gaussians.diagonal({"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 4.0])})
        >>> print(f"{btl.diagnostics.widest_direction(g):.3f}")
        4.000
    """
    check_arguments(widest_direction, locals())
    return float(_largest(gaussian, num_steps))


@jax.jit
def _largest(gaussian: Gaussian, num_steps: Any) -> jax.Array:
    def step(_: Any, carry: Any) -> Any:
        v = _tree.scale(jax.lax.rsqrt(_tree.squared_norm(carry[0])), carry[0])
        moved = gaussian.covariance_mv(v)
        return moved, _tree.vdot(v, moved)

    start = _tree.normal_like(jax.random.key(0), gaussian.mean)
    _, largest_so_far = jax.lax.fori_loop(0, num_steps, step, (start, jnp.zeros((), _tree.vdot(start, start).dtype)))
    largest = [jnp.max(x) for x in jax.tree.leaves(gaussian.variance)]
    return jnp.maximum(largest_so_far, jnp.max(jnp.stack(largest)))
