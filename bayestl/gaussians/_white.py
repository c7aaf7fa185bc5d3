"""The canonical form of a low-rank change of the identity, ``I + Q diag(lam) Q^T``, as a covariance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._types import Params
from bayestl.gaussians._canonical import apart
from bayestl.gaussians._matrices import Columns


def quadratic(columns: Columns, rho: Params) -> jax.Array:
    """``rho^T (I + Q diag(lam) Q^T)^-1 rho``."""
    return _quadratic(columns.remaining is not None, rho, columns.basis, columns.ratios)


def along(columns: Columns, v: Params, weights: Callable[[jax.Array], jax.Array]) -> Params:
    """``(I + Q diag(w) Q^T) v``, the weights w a function of ``1 + lam`` that a module defines, so that it is traced
    once."""
    inside = _tree.columns_dot(columns.basis, v)
    if columns.remaining is not None:
        return _tree.add(v, _tree.columns_mv(columns.basis, weights(columns.remaining) * inside))
    between = _between(weights, columns.basis, columns.ratios)
    return _tree.add(v, _tree.columns_mv(columns.basis, jnp.matmul(between, inside, precision=Precision.HIGHEST)))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _between(weights: Callable[[jax.Array], jax.Array], basis: Params, ratios: jax.Array) -> jax.Array:
    """``diag(w)``, whose tangent has entries beside the diagonal where eigenvalues are equal."""
    return jnp.diag(weights(ratios))


def _between_jvp(weights, primals, tangents):
    (basis, ratios), (d_basis, d_ratios) = primals, tangents
    d_ratios = _instantiate(d_ratios, ratios)
    values, slopes = jax.jvp(weights, (ratios,), (jnp.ones_like(ratios),))
    out = jnp.diag(jnp.zeros_like(values) if d_ratios is None else slopes * d_ratios)
    if (d_basis := _instantiate(d_basis, basis)) is not None:
        # The product rule makes 2 w S of the symmetric part S of Q^T dQ; it stands for 2 lam w' S.
        out += _coupling(basis, d_basis, ratios) * 2 * ((ratios - 1) * slopes - values)
    return jnp.diag(values), out


_between.defjvp(_between_jvp, symbolic_zeros=True)


def _coupling(basis: Params, d_basis: Params, ratios: jax.Array) -> jax.Array:
    """S of :func:`bayestl.gaussians._canonical.canonical`: symmetric, between equal eigenvalues, else zero."""
    gram = _tree.columns_gram(basis, d_basis)
    together = ~apart(ratios - 1) & ~jnp.eye(len(ratios), dtype=bool)
    return jnp.where(together, 0.5 * (gram + gram.T), 0.0)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _quadratic(sharp: bool, rho: Params, basis: Params, ratios: jax.Array) -> jax.Array:
    """``rho^T (I + Q diag(lam) Q^T)^-1 rho`` from the solution u: ``|u|^2 + sum lam (Q^T rho / (1 + lam))^2``.

    For lam >= 0 a sum of positive terms: nothing cancels, where Woodbury's ``|rho|^2 - ...`` is off by factors in
    float32. Two passes over the k columns of Q, which are what the memory has to move, give the gradient too. With
    ``sharp``, where lam comes near -1, in place of u what it has beside the columns of lam < 0.
    """
    inside = _tree.columns_dot(basis, rho)
    left = _tree.sub(rho, _tree.columns_mv(basis, _removed(sharp, ratios) * inside))
    return _value(sharp, left, inside, ratios)


def _removed(sharp: bool, ratios: jax.Array) -> jax.Array:
    """Which share of rho along Q is taken out of it."""
    share = 1 - 1 / ratios
    return jnp.where(ratios < 1, 1, share) if sharp else share


def _value(sharp: bool, left: Params, inside: jax.Array, ratios: jax.Array) -> jax.Array:
    each = (ratios - 1) * (inside / ratios) ** 2
    if sharp:
        each = jnp.where(ratios < 1, inside**2 / ratios, each)
    return _tree.squared_norm(left) + jnp.sum(each)


def _is_zero(tangent: Any) -> bool:
    leaves = jax.tree.leaves(tangent, is_leaf=lambda x: isinstance(x, jax.custom_derivatives.SymbolicZero))
    return all(isinstance(x, jax.custom_derivatives.SymbolicZero) for x in leaves)


def _quadratic_jvp(sharp, primals, tangents):
    # By hand: reverse mode would pass over the k columns twice more to learn that the gradient is 2 u, u the solution.
    rho, basis, ratios = primals
    d_rho, d_basis, d_ratios = (_instantiate(t, p) for t, p in zip(tangents, primals, strict=True))
    inside = _tree.columns_dot(basis, rho)
    weights = 1 - 1 / ratios
    u = left = _tree.sub(rho, _tree.columns_mv(basis, weights * inside))
    if sharp:
        left = _tree.sub(rho, _tree.columns_mv(basis, _removed(sharp, ratios) * inside))
    value = _value(sharp, left, inside, ratios)
    out = jnp.zeros_like(value)
    if d_rho is not None:
        out += 2 * _tree.vdot(u, d_rho)
    if d_basis is not None:
        out -= 2 * jnp.sum(weights * inside * _tree.columns_dot(d_basis, rho))
        coupling = _coupling(basis, d_basis, ratios) * weights * weights
        out += 2 * jnp.sum(inside * jnp.matmul(coupling, inside, precision=Precision.HIGHEST))
    if d_ratios is not None:
        out -= jnp.sum((inside / ratios) ** 2 * d_ratios)
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
