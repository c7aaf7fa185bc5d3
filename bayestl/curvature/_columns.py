"""Curvature by a square root of few columns."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree, gaussians
from bayestl._types import Params, Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ColumnsCurvature:
    """``H = C C^T``. Made by :func:`dual`, which is exact, and by :func:`low_rank`.

    Attributes:
        columns: C, leaves (k, *shape).
    """

    columns: Any

    @property
    def rank(self) -> int:
        """The number of columns k."""
        return jax.tree.leaves(self.columns)[0].shape[0]

    def mv(self, v: Params) -> Params:
        """``H v``."""
        return _tree.columns_mv(self.columns, _tree.columns_dot(self.columns, v))

    def precision_update(
        self, prior: gaussians.Gaussian | None, params: Params, power: Scalar, temperature: Scalar
    ) -> gaussians.Gaussian:
        """The Gaussian at ``params`` with precision ``(power H + Sigma0^-1) / temperature``; see
        :func:`~bayestl.gaussians.add_precision`.

        Raises:
            ValueError: a flat prior.
            TypeError: a prior for which there is no closed form.
        """
        if prior is None:
            raise ValueError(
                f"a curvature of {self.rank} columns leaves directions of which nothing is known under the flat "
                "prior: its posterior has no covariance; give a Gaussian prior, or curvature.dense() with more data "
                "than parameters"
            )
        scaled = jax.tree.map(lambda c: c * jnp.sqrt(jnp.asarray(power, c.dtype)), self.columns)
        posterior = gaussians.add_precision(prior, scaled)
        dtype = jnp.result_type(*jax.tree.leaves(posterior.mean))
        return posterior.around(params).rescale(jnp.asarray(temperature, dtype))

    def log_det_ratio(self, prior: gaussians.Gaussian, power: Scalar) -> jax.Array:
        """``log det (I + power Sigma0 H)``, through the k x k Gram matrix ``C^T Sigma0 C``."""
        gram = self.gram(prior)
        inner = jnp.eye(len(gram), dtype=gram.dtype) + jnp.asarray(power, gram.dtype) * gram
        return 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(inner))))

    def gram(self, prior: gaussians.Gaussian) -> jax.Array:
        """``C^T Sigma0 C``, (k, k)."""
        gram = _tree.columns_gram(self.columns, jax.vmap(prior.covariance_mv)(self.columns))
        return 0.5 * (gram + gram.T)

    def spectrum(self, prior: gaussians.Gaussian) -> jax.Array:
        """The eigenvalues of ``S^T H S``, S S^T = Sigma0, that may differ from 0, ascending, (k,): how far the data
        outweigh the prior, per direction."""
        return jnp.linalg.eigvalsh(self.gram(prior))
