"""Curvature as a full matrix, for few parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.lax import Precision
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.tree_util import Partial

from bayestl import _tree, gaussians
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Key, Params, Scalar
from bayestl.curvature._doubled import Doubled, add, gram, in_float64
from bayestl.curvature._kinds import Kind
from bayestl.curvature._products import square_root
from bayestl.curvature._structure import Builder
from bayestl.passes import batches


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenseCurvature:
    """H as a (D, D) matrix. Made by :func:`dense`.

    Attributes:
        params: the parameters at which it was taken. The rows are in the order of ``jax.tree.leaves``, each leaf in
            row-major order.
        matrix: H, (D, D).
        rest: what H has beyond the digits of ``matrix``, (D, D).
    """

    params: Params
    matrix: Any
    rest: Any

    def unflat(self, vector: jax.Array) -> Params:
        """A vector (D,) as a tree."""
        return ravel_pytree(self.params)[1](vector)

    def mv(self, v: Params) -> Params:
        """``H v``."""
        return self.unflat(_matmul(self.matrix, ravel_pytree(v)[0]))

    def precision_update(
        self, prior: gaussians.Gaussian | None, params: Params, power: Scalar, temperature: Scalar
    ) -> gaussians.Dense:
        """The Gaussian at ``params`` with precision ``(power H + Sigma0^-1) / temperature``, for any prior.

        Under the flat prior a smallest eigenvalue of H below its rounding error, D eps times the largest, gives NaN.
        """
        if prior is None:
            root = _triangular(_flat_root(power * self.matrix))
        else:
            root = _posterior_root(_square_root(prior), self.matrix, self.rest, jnp.asarray(power, self.matrix.dtype))
        return gaussians.Dense(params, root * jnp.sqrt(jnp.asarray(temperature, root.dtype)))

    def log_det_ratio(self, prior: gaussians.Gaussian, power: Scalar) -> jax.Array:
        """``log det (I + power Sigma0 H)``."""
        return _log_det(_square_root(prior), self.matrix, self.rest, jnp.asarray(power, self.matrix.dtype))

    def spectrum(self, prior: gaussians.Gaussian | None = None) -> jax.Array:
        """Eigenvalues of H, ascending, (D,); with a prior those of ``S^T H S``, S S^T = Sigma0: how far the data
        outweigh the prior, per direction."""
        if prior is None:
            return jnp.linalg.eigvalsh(self.matrix)
        root = _square_root(prior)
        return jnp.linalg.eigvalsh(_matmul(root.T, _matmul(self.matrix, root)))


def dense(max_parameters: int = 20_000) -> Builder:
    """The whole curvature, with O(D^2) memory and O(N K D^2 + D^3) time: for heads and small networks.

    Args:
        max_parameters: the most parameters that are accepted.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(0.5), None, num_data=2)
        >>> batch = btl.Batch(jnp.eye(2), jnp.zeros(2))
        >>> curvature = btl.curvature.dense()(
        ...     jax.random.key(0), joint, net.params, batch, btl.curvature.ggn, batch_size=2
        ... )
        >>> print(curvature.matrix)
        [[4. 0.]
         [0. 4.]]
    """
    check_arguments(dense, locals())
    return Partial(_dense, max_parameters)


def _dense(
    max_parameters: int, key: Key, joint: LogJoint, params: Params, data: Data | Batch, kind: Kind, batch_size: int
) -> DenseCurvature:
    size = _tree.size(params)
    if size > max_parameters:
        raise ValueError(
            f"dense curvature of {size} parameters is a matrix of {size**2:.2g} numbers, and max_parameters is "
            f"{max_parameters}; give curvature.low_rank, or a selection of the parameters, or raise max_parameters"
        )

    def one(key: Key, batch: Batch) -> Doubled:
        rows = square_root(joint, kind, params, key, batch)
        return gram(jax.vmap(lambda row: ravel_pytree(row)[0])(rows))

    return DenseCurvature(params, *batches(data, batch_size).sum(key, one, add=add))


def _square_root(prior: gaussians.Gaussian) -> jax.Array:
    flat, unflat = ravel_pytree(prior.mean)
    columns = jax.vmap(lambda e: ravel_pytree(prior.unwhiten(unflat(e)))[0])(jnp.eye(len(flat), dtype=flat.dtype))
    return columns.T


def _flat_root(matrix: jax.Array) -> jax.Array:
    values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T))
    resolved = values[0] > len(values) * jnp.finfo(values.dtype).eps * values[-1]
    return jnp.where(resolved, vectors * jax.lax.rsqrt(values), jnp.nan)


def _triangular(root: jax.Array) -> jax.Array:
    """A lower triangular L with ``L L^T = R R^T`` and a positive diagonal."""
    upper = jnp.linalg.qr(root.T, mode="r")
    return upper.T * jnp.where(jnp.diagonal(upper) < 0, -1.0, 1.0).astype(root.dtype)[None, :]


def _whitened(root: jax.Array, matrix: jax.Array, rest: jax.Array, power: jax.Array) -> tuple[jax.Array, jax.Array]:
    """S in float64, and the Cholesky factor of ``I + power S^T H S``; NaN where the prior's I is lost in rounding.

    For use inside of :func:`in_float64`.
    """
    wide = root.astype(jnp.float64)
    inner = power.astype(jnp.float64) * (wide.T @ Doubled(matrix, rest).float64() @ wide)
    cholesky = jnp.linalg.cholesky(jnp.eye(len(wide), dtype=jnp.float64) + 0.5 * (inner + inner.T))
    least = 10 * jnp.finfo(jnp.float64).eps * jnp.trace(inner)
    return wide, jnp.where(jnp.min(jnp.diagonal(cholesky)) ** 2 > least, cholesky, jnp.nan)


@jax.custom_jvp
@in_float64
def _posterior_root(root: jax.Array, matrix: jax.Array, rest: jax.Array, power: jax.Array) -> jax.Array:
    """The lower triangular L with ``L L^T = (power H + Sigma0^-1)^-1``, S S^T = Sigma0, through a matrix whose
    eigenvalues are at least 1."""
    wide, cholesky = _whitened(root, matrix, rest, power)
    return _triangular(solve_triangular(cholesky, wide.T, lower=True).T).astype(root.dtype)


@_posterior_root.defjvp
def _posterior_root_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # With P the precision, dL = -L lower(L^T dP L), the diagonal of lower halved.
    (root, matrix, _, power), (d_root, d_matrix, d_rest, d_power) = primals, tangents
    lower = _posterior_root(*primals)
    d_precision = power * (d_matrix + d_rest) + d_power * matrix
    white = jnp.linalg.solve(root, lower)
    moved = _matmul(white.T, jnp.linalg.solve(root, _matmul(d_root, white)))
    change = _matmul(lower.T, _matmul(d_precision, lower)) - moved - moved.T
    half = jnp.tril(change) - 0.5 * jnp.diag(jnp.diagonal(change))
    return lower, -_matmul(lower, half)


@jax.custom_jvp
@in_float64
def _log_det(root: jax.Array, matrix: jax.Array, rest: jax.Array, power: jax.Array) -> jax.Array:
    """``log det (I + power S^T H S)``."""
    _, cholesky = _whitened(root, matrix, rest, power)
    return 2 * jnp.sum(jnp.log(jnp.diagonal(cholesky))).astype(root.dtype)


@_log_det.defjvp
def _log_det_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # tr(Sigma d(power H)) + 2 tr(Z dS), Sigma the posterior and Z the derivative in S.
    (_, matrix, _, power), (d_root, d_matrix, d_rest, d_power) = primals, tangents
    covariance, by_root = _derivatives(*primals)
    d_precision = power * (d_matrix + d_rest) + d_power * matrix
    return _log_det(*primals), jnp.sum(covariance * d_precision) + 2 * jnp.sum(by_root * d_root)


@in_float64
def _derivatives(root: jax.Array, matrix: jax.Array, rest: jax.Array, power: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``S (I + M)^-1 S^T`` and ``power H S (I + M)^-1``, M = power S^T H S."""
    wide, cholesky = _whitened(root, matrix, rest, power)
    right = cho_solve((cholesky, True), wide.T).T
    curved = power.astype(jnp.float64) * (Doubled(matrix, rest).float64() @ right)
    return (right @ wide.T).astype(root.dtype), curved.astype(root.dtype)


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)
