"""What a Gaussian becomes when every parameter is measured for itself."""

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
from bayestl.gaussians._canonical import canonical
from bayestl.gaussians._dense import Dense, triangular
from bayestl.gaussians._diagonal import Diagonal
from bayestl.gaussians._low_rank import LowRank


def add_diagonal_precision(gaussian: Gaussian, precision: Params) -> Gaussian:
    """The Gaussian of the same mean and structure whose precision is larger by ``diag(h)``.

    ``(Sigma^-1 + diag(h))^-1``: what a Laplace approximation with diagonal curvature does to its prior. Exact, and of
    the structure of ``gaussian``:

    * diagonal: ``a / (1 + h a)``
    * low rank: with w = h a / (1 + h a), diagonal part ``a / (1 + h a)``, columns ``(1 - w)^1/2 Q`` and between them
      ``Lam (I + Q^T diag(w) Q Lam)^-1``
    * dense, and blocks of all these

    Args:
        gaussian: any structure above.
        precision: h >= 0 in the structure of the mean.

    Raises:
        TypeError: a structure for which the result has no closed form.

    Example:
        >>> g = btl.gaussians.isotropic({"w": jnp.zeros(2)}, scale=1.0)
        >>> print(btl.gaussians.add_diagonal_precision(g, {"w": jnp.array([3.0, 0.0])}).variance()["w"])
        [0.25 1.  ]
    """
    if isinstance(gaussian, Blocks):
        return Blocks(
            tuple(
                add_diagonal_precision(block, _tree.like_selection(precision, block.mean)) for block in gaussian.blocks
            )
        )
    if isinstance(gaussian, Diagonal):
        return Diagonal(gaussian.mean, jax.tree.map(lambda a, h: a / (1 + h * a), gaussian.diagonal, precision))
    if isinstance(gaussian, LowRank):
        return _low_rank(gaussian, precision)
    if isinstance(gaussian, Dense):
        return _dense(gaussian, precision)
    raise TypeError(
        f"diagonal precision on top of a {type(gaussian).__name__} Gaussian has no closed form; give it a diagonal, "
        "low-rank or dense prior, or these by path"
    )


def _low_rank(gaussian: LowRank, precision: Params) -> LowRank:
    """Not by the Woodbury identity for the precision: this form is a sum of positive terms for lam >= 0."""
    gained = jax.tree.map(jnp.multiply, precision, gaussian.diagonal)
    diagonal = jax.tree.map(lambda a, x: a / (1 + x), gaussian.diagonal, gained)
    measured = jax.tree.map(lambda q, x: q * jnp.sqrt(x / (1 + x)), gaussian.basis, gained)
    gram = _tree.columns_gram(measured, measured)
    inner = jnp.eye(gaussian.rank, dtype=gram.dtype) + gaussian.eigenvalues[:, None] * gram
    middle = jnp.linalg.solve(inner, jnp.diag(gaussian.eigenvalues))
    columns = jax.tree.map(lambda q, x: q * jax.lax.rsqrt(1 + x), gaussian.basis, gained)
    basis, eigenvalues = canonical(columns, 0.5 * (middle + middle.T))
    return LowRank(gaussian.mean, diagonal, basis, jnp.maximum(eigenvalues, -1 + jnp.finfo(eigenvalues.dtype).eps))


def _dense(gaussian: Dense, precision: Params) -> Dense:
    lower, added = gaussian.cholesky, ravel_pytree(precision)[0]
    inner = jnp.matmul(lower.T, added[:, None] * lower, precision=Precision.HIGHEST)
    root = jnp.linalg.cholesky(jnp.eye(len(lower), dtype=lower.dtype) + 0.5 * (inner + inner.T))
    return Dense(gaussian.mean, triangular(solve_triangular(root, lower.T, lower=True).T))
