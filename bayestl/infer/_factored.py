"""A low-rank Gaussian while it is being learned: by its factor, without eigenvalues."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jax.scipy.linalg import cho_solve

from bayestl import _tree
from bayestl._types import Key, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Factored:
    """``N(mean, diag(a) + F^T F)`` as a divergence sees it.

    :func:`bayestl.gaussians.low_rank` takes an eigendecomposition, whose gradients need distinct eigenvalues. Here only
    a k x k Cholesky factor of ``C = I + F diag(1/a) F^T`` is taken, so that gradients are exact everywhere.

    Attributes:
        mean: pytree of means.
        diagonal: a > 0, in the structure of ``mean``.
        factor: F, leaves (k, *shape).
    """

    mean: Any
    diagonal: Any
    factor: Any

    def _columns(self) -> tuple[Params, jax.Array]:
        """``B = a^-1/2 F`` and the Cholesky factor of C."""
        columns = jax.tree.map(lambda f, a: f * jax.lax.rsqrt(a), self.factor, self.diagonal)
        gram = _tree.columns_gram(columns, columns)
        return columns, jnp.linalg.cholesky(gram + jnp.eye(len(gram), dtype=gram.dtype))

    def log_det_covariance(self) -> jax.Array:
        """``sum log a + log det C``."""
        _, cholesky = self._columns()
        logs = _tree.total(jnp.sum(jnp.log(a)) for a in jax.tree.leaves(self.diagonal))
        return logs + 2 * jnp.sum(jnp.log(jnp.diagonal(cholesky)))

    def trace(self, diagonal: Params, quadratic: Callable[[Params], jax.Array], dual: Any = None) -> jax.Array:
        """``tr(A Sigma)`` for a symmetric A known by its diagonal and by ``quadratic(v) = v^T A v``; the dual, which is
        for structures with many columns, is not used."""
        return _tree.vdot(diagonal, self.diagonal) + jnp.sum(jax.vmap(quadratic)(self.factor))

    def log_prob(self, params: Params) -> jax.Array:
        """Log density: with rho = a^-1/2 r and w = C^-1 B^T rho, ``r^T Sigma^-1 r = |rho - B w|^2 + |w|^2``."""
        columns, cholesky = self._columns()
        rho = jax.tree.map(lambda x, m, a: (x - m) * jax.lax.rsqrt(a), params, self.mean, self.diagonal)
        weights = cho_solve((cholesky, True), _tree.columns_dot(columns, rho))
        quadratic = _tree.squared_norm(_tree.sub(rho, _tree.columns_mv(columns, weights))) + jnp.sum(weights**2)
        constant = _tree.size(self.mean) * math.log(2 * math.pi) + self.log_det_covariance()
        return -0.5 * (constant + quadratic)

    def draw(self, key: Key) -> Params:
        """One draw, ``mean + a^1/2 e1 + F^T e2``."""
        key_diagonal, key_factor = jax.random.split(key)
        noise = _tree.normal_like(key_diagonal, self.mean)
        leaf = jax.tree.leaves(self.factor)[0]
        along = jax.random.normal(key_factor, leaf.shape[:1], leaf.dtype)

        def moved(m: jax.Array, a: jax.Array, e: jax.Array, f: jax.Array) -> jax.Array:
            return m + jnp.sqrt(a) * e + jnp.tensordot(along.astype(f.dtype), f, axes=1, precision=Precision.HIGHEST)

        return jax.tree.map(moved, self.mean, self.diagonal, noise, self.factor)

    def sample(self, key: Key, num_samples: int) -> Params:
        """``num_samples`` draws; leaves have a leading axis of that length."""
        return jax.vmap(self.draw)(jax.random.split(key, num_samples))
