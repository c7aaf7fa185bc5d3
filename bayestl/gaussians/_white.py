"""The canonical form of a low-rank change of the identity, ``I + Q diag(lam) Q^T``, as a covariance."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Params
from bayestl.gaussians._matrices import Columns


def quadratic(columns: Columns, rho: Params) -> jax.Array:
    """``rho^T (I + Q diag(lam) Q^T)^-1 rho``."""
    return _quadratic(rho, columns.basis, columns.eigenvalues)


def along(columns: Columns, v: Params, weights: jax.Array) -> Params:
    """``(I + Q diag(weights) Q^T) v``."""
    return _tree.add(v, _tree.columns_mv(columns.basis, weights * _tree.columns_dot(columns.basis, v)))


@jax.custom_jvp
def _quadratic(rho: Params, basis: Params, eigenvalues: jax.Array) -> jax.Array:
    """``rho^T (I + Q diag(lam) Q^T)^-1 rho`` as ``|u|^2 + sum lam (Q^T rho / (1 + lam))^2``, u that inverse times rho.

    For lam >= 0 it is a sum of positive terms: nothing cancels, while Woodbury's ``|rho|^2 - ...`` is off by factors in
    float32. Value and gradient together take two passes over the k columns of Q, which dominate the memory traffic.
    """
    return _quadratic_and_solution(rho, basis, eigenvalues)[0]


def _quadratic_and_solution(rho, basis, eigenvalues):
    inside = _tree.columns_dot(basis, rho)
    u = _tree.sub(rho, _tree.columns_mv(basis, eigenvalues / (1 + eigenvalues) * inside))
    value = _tree.squared_norm(u) + jnp.sum(eigenvalues * (inside / (1 + eigenvalues)) ** 2)
    return value, inside, u


def _is_zero(tangent: Any) -> bool:
    leaves = jax.tree.leaves(tangent, is_leaf=lambda x: isinstance(x, jax.custom_derivatives.SymbolicZero))
    return all(isinstance(x, jax.custom_derivatives.SymbolicZero) for x in leaves)


def _quadratic_jvp(primals, tangents):
    # Written by hand: reverse mode would pass over the k columns twice more to find that the gradient is 2 u.
    rho, basis, eigenvalues = primals
    value, inside, u = _quadratic_and_solution(rho, basis, eigenvalues)
    d_rho, d_basis, d_eigenvalues = (_instantiate(t, p) for t, p in zip(tangents, primals, strict=True))
    out = jnp.zeros_like(value)
    if d_rho is not None:
        out += 2 * _tree.vdot(u, d_rho)
    if d_basis is not None:
        out -= 2 * jnp.sum(eigenvalues / (1 + eigenvalues) * inside * _tree.columns_dot(d_basis, rho))
    if d_eigenvalues is not None:
        out -= jnp.sum((inside / (1 + eigenvalues)) ** 2 * d_eigenvalues)
    return value, out


def _instantiate(tangent: Any, primal: Any) -> Any:
    """None for a tangent known to be zero, else the tangent with its zero leaves filled in."""
    if _is_zero(tangent):
        return None
    return jax.tree.map(
        lambda t, p: jnp.zeros_like(p) if isinstance(t, jax.custom_derivatives.SymbolicZero) else t,
        tangent,
        primal,
        is_leaf=lambda x: isinstance(x, jax.custom_derivatives.SymbolicZero),
    )


_quadratic.defjvp(_quadratic_jvp, symbolic_zeros=True)


def squared_mv(columns: Params, weights: jax.Array) -> Params:
    """``sum_j w_j c_j^2``, (*shape) per leaf.

    A few columns at a time: a product would first store all k squares, and some CPU kernels do the same for a sum.
    """

    def leaf(c: jax.Array) -> jax.Array:
        def add(total: jax.Array, column: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            weight, values = column
            return total + weight * values * values, None

        columns_and_weights = (weights.astype(c.dtype), c)
        return jax.lax.scan(add, jnp.zeros(c.shape[1:], c.dtype), columns_and_weights, unroll=min(len(c), 2))[0]

    return jax.tree.map(leaf, columns)


def above_minus_one(eigenvalues: jax.Array) -> jax.Array:
    """Eigenvalues kept at least a rounding error away from -1."""
    return jnp.maximum(eigenvalues, -1 + jnp.finfo(eigenvalues.dtype).eps)


def check_columns(columns: Columns) -> None:
    """Raise a ``ValueError`` for columns that are not orthonormal, and eigenvalues that no covariance can have."""
    eigenvalues = columns.eigenvalues
    _tree.check_finite("basis", columns.basis)
    _tree.check_finite("eigenvalues", eigenvalues)
    if not bool(jnp.all(eigenvalues > -1)):
        raise ValueError(f"eigenvalues must be greater than -1; the smallest is {float(jnp.min(eigenvalues)):.9g}")
    gram = _tree.columns_gram(columns.basis, columns.basis)
    # Half of the digits is far above the rounding of a sum over all parameters, and far below any real mistake.
    tolerance = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(columns.basis)) ** 0.5
    # A zero column belongs to a zero eigenvalue, and may have been rotated among such columns: then Q^T Q is not the
    # identity but a projection that does not change the eigenvalues.
    projection = float(jnp.max(jnp.abs(gram @ gram - gram)))
    off = float(jnp.max(jnp.abs(gram * eigenvalues - jnp.diag(eigenvalues)) / (1 + jnp.abs(eigenvalues))))
    if max(projection, off) > tolerance:
        raise ValueError(f"the columns of basis are not orthonormal: off by {max(projection, off):.3g}")
