"""Posteriors under a prior with a low-rank part, where only the rest of the prior gives one in closed form.

With S0 the root of the rest, ``Sigma0 = S0 (I + Q diag(lam) Q^T) S0^T``, and ``B = power S0^T H S0``: the posterior of
the rest is ``P = S0 (I + B)^-1 S0^T = S S^T``, and that of the whole ``S (I + C0 K C0^T) S^T`` with

    C0 = S^T S0^-T Q,  K = Lam (I + M Lam)^-1,  M = I - C0^T C0 = Q^T B (I + B)^-1 Q = Y^T Y.

Eigenvalues of source covariances reach 1e8 and more, where the last digits of M matter. Therefore M is never formed,
only its root Y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._types import Params
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._low_rank import LowRank
from bayestl.gaussians._matrices import Columns
from bayestl.gaussians._white import above_minus_one

# ---------------------------------------------------------------- the precision


class OfLayer(NamedTuple):
    """B of one layer: ``D A D (x) G``, D = diag(rows), and its eigenvalues and -vectors.

    Attributes:
        rows: the prior's standard deviations, (I, 1), or one number.
        inputs: A, (g, I, I).
        outputs: G with the power, (g, O, O).
        input_vectors: of ``D A D``.
        output_vectors: of G.
        values: of B, (g, I, O).
    """

    rows: jax.Array
    inputs: jax.Array
    outputs: jax.Array
    input_vectors: jax.Array
    output_vectors: jax.Array
    values: jax.Array

    def along(self, x: jax.Array) -> jax.Array:
        """``V^T x`` for x (..., g, I, O) and V the eigenvectors."""
        return _matmul(_matmul(self.input_vectors.mT, x), self.output_vectors)

    def remaining(self, x: jax.Array) -> jax.Array:
        """``(I + B)^-1/2 x``, in the basis V."""
        return self.along(x) * jax.lax.rsqrt(1 + self.values)

    def root(self, x: jax.Array) -> jax.Array:
        """``(B (I + B)^-1)^1/2 x``, in the basis V."""
        return self.along(x) * jnp.sqrt(self.values / (1 + self.values))

    def resolve(self, x: jax.Array) -> jax.Array:
        """``(I + B)^-1 x``."""
        inside = self.along(x) / (1 + self.values)
        return _matmul(_matmul(self.input_vectors, inside), self.output_vectors.mT)

    def apply(self, x: jax.Array) -> jax.Array:
        """``B x``."""
        return _matmul(self.rows * _matmul(self.inputs, self.rows * x), self.outputs)


class OfDiagonal(NamedTuple):
    """B of a parameter with a diagonal precision under a diagonal prior.

    Attributes:
        values: the diagonal of B, in the shape of the parameter.
    """

    values: jax.Array

    def remaining(self, x: jax.Array) -> jax.Array:
        """``(I + B)^-1/2 x``."""
        return x * jax.lax.rsqrt(1 + self.values)

    def root(self, x: jax.Array) -> jax.Array:
        """``(B (I + B)^-1)^1/2 x``."""
        return x * jnp.sqrt(self.values / (1 + self.values))

    def resolve(self, x: jax.Array) -> jax.Array:
        """``(I + B)^-1 x``."""
        return x / (1 + self.values)

    def apply(self, x: jax.Array) -> jax.Array:
        """``B x``."""
        return self.values * x


# ---------------------------------------------------------------- the posterior


def with_columns(base: Gaussian, columns: Columns, remaining: Params, measured: Sequence[jax.Array]) -> LowRank:
    """The posterior under the whole prior.

    Let s be the singular values of Y and V its right singular vectors. C0 V has orthogonal columns, of lengths c. With
    the columns scaled to length 1, the precision between them is ``diag(s^2) + diag(c) V^T (I + Lam)^-1 V diag(c)``: a
    sum of positive terms for every lam > -1, whose eigenvalues are computed from a root of it.

    Args:
        base: the posterior under the rest of the prior.
        columns: of the prior.
        remaining: C0, in the structure of ``columns.basis``.
        measured: Y in pieces, each (k, ...).
    """
    missing = jnp.eye(len(columns.eigenvalues)) - _tree.columns_gram(columns.basis, columns.basis)
    # Zero columns are treated as fully determined by the data; anything else in them is rounding.
    missing = jnp.where(jnp.abs(missing) < jnp.finfo(missing.dtype).eps ** 0.5, 0, missing)
    _, sines, turn = jnp.linalg.svd(jnp.concatenate([_triangular(measured), missing]), full_matrices=False)
    turned = _tree.columns_mv(remaining, turn)
    cosines = jnp.sqrt(jax.vmap(_tree.squared_norm)(turned))
    lengths = jnp.where(cosines > 0, cosines, 1)
    turned = jax.vmap(_tree.scale)(1 / lengths, turned)
    weights = jax.lax.rsqrt(columns.ratios)[:, None] * turn.T * cosines
    root = jnp.concatenate([jnp.diag(sines), weights.astype(sines.dtype)])
    _, values, rotation = jnp.linalg.svd(root, full_matrices=False)
    basis = _tree.columns_mv(turned, _matmul(rotation, _inverse_root(_tree.columns_gram(turned, turned))))
    return LowRank(base, basis, above_minus_one(1 / values**2 - 1), 1 / values**2)


def _inverse_root(gram: jax.Array) -> jax.Array:
    """The inverse root of a Gram matrix that is nearly the identity, except for zero or duplicate columns. It turns the
    columns into the nearest orthonormal ones."""
    values, vectors = jnp.linalg.eigh(gram)
    full = values > 0.1
    return _matmul(vectors * jnp.where(full, jax.lax.rsqrt(jnp.where(full, values, 1)), 0), vectors.T)


def _triangular(measured: Sequence[jax.Array]) -> jax.Array:
    """R, (k, k), with ``R^T R = Y^T Y``, computed without squaring, which would cost half of the digits."""
    each = [jnp.linalg.qr(piece.reshape(len(piece), -1).T, mode="r") for piece in measured]
    enough = jnp.zeros((each[0].shape[1],) * 2, each[0].dtype)
    return jnp.linalg.qr(jnp.concatenate([*each, enough]), mode="r")


# ---------------------------------------------------------------- the evidence


@jax.custom_jvp
def log_det(parts: Sequence[OfLayer | OfDiagonal], basis: Sequence[jax.Array], eigenvalues: jax.Array) -> jax.Array:
    """``log det (I + M Lam)``, Q in pieces (k, ...), one for each part of B.

    Its derivative is computed from ``dM = X^T dB X``, ``X = (I + B)^-1 Q``, not from the eigenvectors of B, which have
    no derivatives where eigenvalues are equal.
    """
    _, sines, turn = jnp.linalg.svd(_triangular([part.root(q) for part, q in zip(parts, basis, strict=True)]))
    sines = jnp.minimum(sines, 1)
    # In the basis V it is the log determinant of I - M + M^1/2 (I + Lam) M^1/2, of which this is a root.
    root = jnp.sqrt(1 + eigenvalues)[:, None] * turn.T * sines
    root = jnp.concatenate([jnp.diag(jnp.sqrt((1 - sines) * (1 + sines))), root])
    return 2 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(jnp.linalg.qr(root, mode="r")))))


@log_det.defjvp
def _log_det_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (parts, basis, eigenvalues), (d_parts, d_basis, d_eigenvalues) = primals, tangents
    gram = _tree.total(_gram(y, y) for y in [part.root(q) for part, q in zip(parts, basis, strict=True)])
    inner = jnp.eye(len(gram), dtype=gram.dtype) + eigenvalues[:, None] * gram
    middle = jnp.linalg.solve(inner, jnp.diag(eigenvalues))
    change = jnp.sum(jnp.diagonal(jnp.linalg.solve(inner.T, gram)) * d_eigenvalues)
    for part, d_part, q, d_q in zip(parts, d_parts, basis, d_basis, strict=True):
        x = part.resolve(q)
        image, moved = jax.jvp(lambda part, x=x: part.apply(x), (part,), (d_part,))
        change += jnp.sum(middle * (_gram(x, moved) + 2 * _gram(image, d_q)))
    return log_det(parts, basis, eigenvalues), change


def _gram(x: jax.Array, y: jax.Array) -> jax.Array:
    return _matmul(x.reshape(len(x), -1), y.reshape(len(y), -1).T)


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)
