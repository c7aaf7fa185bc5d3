"""Curvature as a square root with few columns."""

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
        :meth:`~bayestl.gaussians.Gaussian.add_precision`.

        Raises:
            ValueError: a flat prior.
        """
        if prior is None:
            raise ValueError(
                f"a curvature of {self.rank} columns leaves directions about which nothing is known under the flat "
                "prior: its posterior has no covariance; give a Gaussian prior, or curvature.dense() with more data "
                "than parameters"
            )
        posterior = prior.add_precision(self._scaled(power))
        dtype = jnp.result_type(*jax.tree.leaves(posterior.mean))
        return posterior.around(params).rescale(jnp.asarray(temperature, dtype))

    def log_det_ratio(self, prior: gaussians.Gaussian, power: Scalar) -> jax.Array:
        """``log det (I + power Sigma0 H)``; see :meth:`~bayestl.gaussians.Gaussian.log_det_ratio`."""
        return prior.log_det_ratio(self._scaled(power))

    def _scaled(self, power: Scalar) -> Params:
        """A root of ``power H``."""
        return jax.tree.map(lambda c: c * jnp.sqrt(jnp.asarray(power, c.dtype)), self.columns)

    def gram(self, prior: gaussians.Gaussian) -> jax.Array:
        """``C^T Sigma0 C``, (k, k)."""
        gram = _tree.columns_gram(self.columns, jax.vmap(prior.covariance_mv)(self.columns))
        return 0.5 * (gram + gram.T)

    def spectrum(self, prior: gaussians.Gaussian) -> jax.Array:
        """The eigenvalues of ``S^T H S``, S S^T = Sigma0, that may differ from 0, ascending, (k,): how far the data
        outweigh the prior, per direction."""
        return jnp.linalg.eigvalsh(self.gram(prior))
