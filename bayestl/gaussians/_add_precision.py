"""What a Gaussian becomes when linear measurements of it come in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.lax import Precision
from jax.scipy.linalg import solve_triangular

from bayestl import _tree
from bayestl._types import Params
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._by_path import Blocks
from bayestl.gaussians._canonical import canonical, orthonormal
from bayestl.gaussians._dense import Dense, triangular
from bayestl.gaussians._diagonal import Diagonal
from bayestl.gaussians._kronecker import Kronecker
from bayestl.gaussians._low_rank import LowRank
from bayestl.gaussians._low_rank_update import LowRankUpdate, transposed
from bayestl.gaussians._one_block import above_minus_one, as_one_block, no_closed_form


def add_precision(gaussian: Gaussian, columns: Params) -> Gaussian:
    """The Gaussian of the same mean whose precision is larger by ``C C^T``: ``(Sigma^-1 + C C^T)^-1``.

    What a Laplace approximation does to its prior, C then a square root of the curvature. Nothing of size D x D is
    formed unless the covariance is dense already:

    * diagonal, low rank, and blocks of these give a :class:`LowRank` over the whole tree, of rank k more, O(D k^2)
    * dense gives :class:`Dense`; blocks with a dense one give whichever of the two is smaller
    * Kronecker, blocks with one of these, and a :class:`LowRankUpdate` give a :class:`LowRankUpdate`

    Directions in which ``C C^T`` outweighs the prior by more than 1 over the machine epsilon (8e6 in float32) are kept
    at that, which is what a :class:`LowRank` can hold.

    Args:
        gaussian: any structure above.
        columns: C in the structure of the mean; every leaf has a leading axis, (k, *shape).

    Raises:
        TypeError: a structure for which the result has no closed form.

    Reference:
        The Woodbury identity in square-root form: with S S^T = Sigma and the singular values s of S^T C, U its left
        singular vectors, the new square root is ``S (I + U (1 / sqrt(1 + s^2) - 1) U^T)``.

    Example:
        >>> g = btl.gaussians.isotropic({"w": jnp.zeros(2)}, scale=1.0)
        >>> updated = btl.gaussians.add_precision(g, {"w": jnp.array([[3.0, 0.0]])})
        >>> print(updated.variance()["w"].round(3))
        [0.1 1. ]
    """
    if isinstance(gaussian, Blocks):
        gaussian = as_one_block(gaussian, jax.tree.leaves(columns)[0].shape[0])
    if isinstance(gaussian, Diagonal):
        return _diagonal(gaussian, columns)
    if isinstance(gaussian, LowRank):
        return _low_rank(gaussian, columns)
    if isinstance(gaussian, Dense):
        return _dense(gaussian, columns)
    if isinstance(gaussian, LowRankUpdate):
        return _low_rank_update(gaussian, columns)
    if isinstance(gaussian, Kronecker | Blocks):
        return _on_a_base(gaussian, columns)
    raise TypeError(no_closed_form(gaussian))


def _diagonal(gaussian: Diagonal, columns: Params) -> LowRank:
    scaled = jax.tree.map(lambda c, a: c * jnp.sqrt(a), columns, gaussian.diagonal)
    return LowRank(gaussian.mean, gaussian.diagonal, *_measured(scaled, _tree.size(gaussian.mean)))


def _on_a_base(gaussian: Kronecker | Blocks, columns: Params) -> LowRankUpdate:
    scaled = jax.vmap(transposed(gaussian.unwhiten, gaussian.mean))(columns)
    return LowRankUpdate(gaussian, *_measured(scaled, _tree.size(gaussian.mean)))


def _low_rank(gaussian: LowRank, columns: Params) -> LowRank:
    scaled = jax.tree.map(lambda c, a: c * jnp.sqrt(a), columns, gaussian.diagonal)
    return LowRank(gaussian.mean, gaussian.diagonal, *_measured_again(gaussian, scaled))


def _low_rank_update(gaussian: LowRankUpdate, columns: Params) -> LowRankUpdate:
    scaled = jax.vmap(transposed(gaussian.base.unwhiten, gaussian.mean))(columns)
    return LowRankUpdate(gaussian.base, *_measured_again(gaussian, scaled))


def _measured(scaled: Params, size: int) -> tuple[Params, jax.Array]:
    """Q and lam of ``(I + C C^T)^-1``, C the columns as the square root of the covariance sees them."""
    rank = jax.tree.leaves(scaled)[0].shape[0]
    basis, gained = canonical(scaled, jnp.eye(rank))
    # Eigenvalues ascend, so that columns beyond the number of parameters, which are zero, come first.
    keep = slice(max(rank - size, 0), None)
    basis, gained = jax.tree.map(lambda q: q[keep], basis), jnp.maximum(gained[keep], 0)
    return basis, above_minus_one(-gained / (1 + gained))


def _measured_again(gaussian: LowRank | LowRankUpdate, scaled: Params) -> tuple[Params, jax.Array]:
    """Likewise of ``((I + Q diag(lam) Q^T)^-1 + C C^T)^-1``.

    With Z an orthonormal basis of both sets of columns: all else is small.
    """
    both = jax.tree.map(lambda q, c: jnp.concatenate([q, c]), gaussian.basis, scaled)
    basis, coordinates = orthonormal(both)
    keep = slice(max(len(coordinates) - _tree.size(gaussian.mean), 0), None)
    basis, coordinates = jax.tree.map(lambda z: z[keep], basis), coordinates[keep]
    old, new = coordinates[:, : gaussian.rank], coordinates[:, gaussian.rank :]
    eye = jnp.eye(len(coordinates), dtype=coordinates.dtype)
    root = eye + _matmul(old * (jnp.sqrt(1 + gaussian.eigenvalues) - 1), old.T)
    left, gained, _ = jnp.linalg.svd(_matmul(root.T, new), full_matrices=False)
    root = _matmul(root, eye + _matmul(left * (jax.lax.rsqrt(1 + gained**2) - 1), left.T))
    # Singular values of the root, not eigenvalues of the covariance: in float32 wide spectra would lose their low end.
    left, values, _ = jnp.linalg.svd(root)
    return _tree.columns_mv(basis, left.T), above_minus_one(values**2 - 1)


def _dense(gaussian: Dense, columns: Params) -> Dense:
    measured = _matmul(gaussian.cholesky.T, jax.vmap(lambda c: ravel_pytree(c)[0])(columns).T)
    inner = jnp.linalg.cholesky(jnp.eye(len(measured), dtype=measured.dtype) + _matmul(measured, measured.T))
    return Dense(gaussian.mean, triangular(solve_triangular(inner, gaussian.cholesky.T, lower=True).T))


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)
