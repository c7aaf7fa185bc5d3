"""Matrices in twice the digits of float32, inside programs that have no float64: as sums of two.

Where the data outweigh a prior by g, a curvature in float32 has eigenvalues that are off by 1e-7 g in every direction,
and what the data say nothing of seems measured once g is 1e7. So sums of products, and what is taken of them at once,
are in float64 here, whatever JAX is set to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

_T = TypeVar("_T")


class Doubled(NamedTuple):
    """``high + low``, each a matrix in the dtype of the parameters."""

    high: Any
    low: Any

    def float64(self) -> jax.Array:
        """The sum, for use inside of :func:`in_float64`."""
        return self.high.astype(jnp.float64) + self.low.astype(jnp.float64)


def in_float64(function: Callable[..., _T]) -> Callable[..., _T]:
    """The function traced where float64 exists. It takes and gives arrays of other dtypes, by position, and must not
    be differentiated through."""

    def traced(*args: Any) -> _T:
        with jax.enable_x64(True):
            return function(*args)

    inner = jax.custom_batching.custom_vmap(traced)

    @inner.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any) -> tuple[_T, Any]:
        # Rules of single operations would be traced where float64 does not exist.
        axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))
        out = in_float64(jax.vmap(function, in_axes=axes, axis_size=axis_size))(*args)
        return out, jax.tree.map(lambda _: True, out)

    return wraps(function)(inner)


def split(matrix: jax.Array, dtype: Any) -> Doubled:
    """A float64 matrix as a sum of two in ``dtype``."""
    high = matrix.astype(dtype)
    return Doubled(high, (matrix - high.astype(jnp.float64)).astype(dtype))


@jax.custom_jvp
@in_float64
def gram(rows: jax.Array) -> Doubled:
    """``R^T R`` for rows (n, D)."""
    wide = rows.astype(jnp.float64)
    return split(jnp.matmul(wide.T, wide), rows.dtype)


@gram.defjvp
def _gram_jvp(primals: Any, tangents: Any) -> tuple[Doubled, Doubled]:
    (rows,), (d_rows,) = primals, tangents
    half = jnp.matmul(d_rows.T, rows, precision=jax.lax.Precision.HIGHEST)
    return gram(rows), Doubled(half + half.T, jnp.zeros_like(half))


@jax.custom_jvp
@in_float64
def add(x: Doubled, y: Doubled) -> Doubled:
    """``x + y``."""
    return split(x.float64() + y.float64(), x.high.dtype)


@add.defjvp
def _add_jvp(primals: Any, tangents: Any) -> tuple[Doubled, Doubled]:
    return add(*primals), jax.tree.map(jnp.add, *tangents)
