"""Matrix-normal distributions, one per leaf."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._rearrangement import Rearrangement
from bayestl._types import Params
from bayestl.gaussians._blocks import Blocks
from bayestl.gaussians._kronecker import Kronecker
from bayestl.gaussians._matrix_layout import MatrixLayout
from bayestl.gaussians._validate import check_real, checked_mean


def kronecker(mean: Params, rows: Params, columns: Params) -> Blocks:
    """Independent leaves, each with a matrix-normal distribution: ``Sigma = R (x) C``.

    A leaf counts as a matrix whose columns are its last axis and whose rows are all its other axes. A dense or
    convolution kernel then has one row per input and one column per output: ``Cov(W_io, W_jq) = R_ij C_oq``.

    Args:
        mean: pytree of floating-point arrays, each with at least one axis.
        rows: R for every leaf, (I, I), symmetric and positive definite.
        columns: C for every leaf, (O, O), likewise.

    Raises:
        ValueError: structures or shapes that differ, non-finite values, a matrix that is not symmetric or not positive
            definite.

    Reference:
        Louizos and Welling 2016, "Structured and Efficient Variational Deep Learning with Matrix Gaussian Posteriors",
        arXiv 1603.04733.

    Example:
        >>> g = btl.gaussians.kronecker({"w": jnp.zeros((2, 3))}, {"w": 4 * jnp.eye(2)}, {"w": jnp.eye(3)})
        >>> print(g.variance["w"][0])
        [4. 4. 4.]
    """
    check_arguments(kronecker, locals())
    mean = checked_mean(mean)
    blocks = []
    for path, leaf in _tree.by_paths(mean).items():
        if not leaf.ndim:
            raise ValueError(f"mean at {path!r} is a single number; a leaf needs rows and columns, at least one axis")
        shape = (1, leaf.size // leaf.shape[-1], leaf.shape[-1])
        part = _tree.select_where(mean, lambda other, path=path: other == path)
        r, c = (
            _decomposed(name, tree, path, n, leaf.dtype)
            for name, tree, n in (("rows", rows, shape[1]), ("columns", columns, shape[2]))
        )
        layout = MatrixLayout(path, Rearrangement(leaf.shape, (("reshape", shape),)))
        spectrum = r[0][:, :, None] * c[0][:, None, :]
        blocks.append(Kronecker(part, jnp.ones((), leaf.dtype), r[1], c[1], spectrum, layout))
    return Blocks(tuple(blocks))


def _decomposed(name: str, tree: Params, path: str, size: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues (1, n) and eigenvectors (1, n, n) of a covariance."""
    matrices = _tree.by_paths(tree)
    where = f"{name} at {path!r}"
    if path not in matrices or jnp.shape(matrices[path]) != (size, size):
        have = f"has shape {jnp.shape(matrices[path])}" if path in matrices else "is missing"
        raise ValueError(f"{where} {have}; a covariance of shape {(size, size)} is needed for this leaf of mean")
    check_real(name, {path: matrices[path]})
    matrix = jnp.asarray(matrices[path], dtype)
    _tree.check_finite(name, {path: matrix})
    values, vectors = jnp.linalg.eigh(matrix)
    if _tree.is_concrete(matrix):
        skew = float(jnp.max(jnp.abs(matrix - matrix.T)))
        if skew > 100 * float(jnp.finfo(dtype).eps) * float(jnp.max(jnp.abs(matrix))):
            raise ValueError(f"{where} is not symmetric: it differs from its transpose by {skew:.3g}")
        if not float(values[0]) > 0:
            raise ValueError(
                f"{where} is not positive definite: its smallest eigenvalue is {float(values[0]):.3g}; add a floor "
                "eps * I"
            )
    return values[None], vectors[None]
