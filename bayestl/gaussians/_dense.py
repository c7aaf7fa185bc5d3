"""Gaussians with a full covariance matrix, for few parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.lax import Precision
from jax.scipy.linalg import solve_triangular

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params, Scalar, Selection
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._matrices import Dual
from bayestl.gaussians._storable import Parameter, Shape, Shapes, Stored, check_settings
from bayestl.gaussians._validate import check_added, check_real, checked_mean, factors, values_outside


def _flat(tree: Params) -> jax.Array:
    # The only place in the core with a flat vector: a full matrix needs an order of all parameters. It is that of
    # jax.tree.leaves, each leaf in row-major order.
    return ravel_pytree(tree)[0]


def _sizes(tree: Params) -> dict[str, int]:
    return {path: leaf.size for path, leaf in _tree.by_paths(tree).items()}


def _rows(sizes: Mapping[str, int], paths: Sequence[str]) -> np.ndarray:
    """The rows of the covariance that belong to the leaves at ``paths``, in a tree with leaves of these sizes."""
    ends = np.cumsum(list(sizes.values()))
    sections = {path: np.arange(end - sizes[path], end) for path, end in zip(sizes, ends, strict=True)}
    return np.concatenate([sections[path] for path in paths] or [np.zeros(0, int)])


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    # The default precision of accelerators keeps about three digits of a float32 product.
    return jnp.matmul(x, y, precision=Precision.HIGHEST)


def triangular(rows: jax.Array) -> jax.Array:
    """A lower triangular L with ``L L^T = R R^T``, from R itself, without squaring its condition number."""
    upper = jnp.linalg.qr(rows.T, mode="r")
    return upper.T * jnp.where(jnp.diagonal(upper) < 0, -1.0, 1.0)[None, :]


def reordered(cholesky: jax.Array, sizes: Mapping[str, int], order: Sequence[str]) -> jax.Array:
    """The Cholesky factor for leaves of these sizes, for the same leaves in another order."""
    rows = _rows(sizes, order)
    return cholesky if np.array_equal(rows, np.arange(len(rows))) else triangular(cholesky[rows])


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Dense(Gaussian, kind="dense"):
    """A full covariance by its lower Cholesky factor: ``Sigma = L L^T``. Made by :func:`dense`.

    Attributes:
        mean: pytree of means.
        cholesky: L, (D, D), in the order of ``jax.tree.leaves(mean)``, each leaf in row-major order.
    """

    mean: Any
    cholesky: Any

    def _unflat(self, vector: jax.Array) -> Params:
        return ravel_pytree(self.mean)[1](vector)

    def covariance(self) -> jax.Array:
        """The (D, D) covariance matrix."""
        return _matmul(self.cholesky, self.cholesky.T)

    def precision_quadratic(self, v: Params) -> jax.Array:
        """See :meth:`Gaussian.precision_quadratic`."""
        white = solve_triangular(self.cholesky, _flat(v), lower=True)
        return jnp.sum(white * white)

    def log_det_covariance(self) -> jax.Array:
        """See :meth:`Gaussian.log_det_covariance`."""
        return 2 * jnp.sum(jnp.log(jnp.diagonal(self.cholesky)))

    @property
    def variance(self) -> Params:
        """See :meth:`Gaussian.variance`."""
        return self._unflat(jnp.sum(self.cholesky**2, axis=1))

    def precision_diagonal(self) -> Params:
        """See :meth:`Gaussian.precision_diagonal`."""
        inverse = solve_triangular(self.cholesky, jnp.eye(len(self.cholesky), dtype=self.cholesky.dtype), lower=True)
        return self._unflat(jnp.sum(inverse**2, axis=0))

    def precision_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.precision_mv`."""
        white = solve_triangular(self.cholesky, _flat(v), lower=True)
        return self._unflat(solve_triangular(self.cholesky, white, lower=True, trans=1))

    def covariance_mv(self, v: Params) -> Params:
        """See :meth:`Gaussian.covariance_mv`."""
        return self._unflat(_matmul(self.cholesky, _matmul(self.cholesky.T, _flat(v))))

    def whiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.whiten`."""
        return self._unflat(solve_triangular(self.cholesky, _flat(v), lower=True))

    def unwhiten(self, v: Params) -> Params:
        """See :meth:`Gaussian.unwhiten`."""
        return self._unflat(_matmul(self.cholesky, _flat(v)))

    def around(self, mean: Params) -> Dense:
        """See :meth:`Gaussian.around`."""
        return dataclasses.replace(self, mean=mean)

    def rescale(self, c: Any) -> Dense:
        """See :meth:`Gaussian.rescale`."""
        roots = jax.tree.map(
            lambda x, m: jnp.broadcast_to(jnp.sqrt(x), m.shape).astype(m.dtype), factors(c, self.mean), self.mean
        )
        return Dense(self.mean, _flat(roots)[:, None] * self.cholesky)

    def inflate(self, eps: Scalar) -> Dense:
        """See :meth:`Gaussian.inflate`."""
        check_added(eps)
        covariance = self.covariance()
        return Dense(
            self.mean, jnp.linalg.cholesky(covariance + eps * jnp.eye(len(covariance), dtype=covariance.dtype))
        )

    def restrict(self, selection: Selection) -> Dense:
        """See :meth:`Gaussian.restrict`."""
        part = _tree.as_selection(self.mean, selection)
        return Dense(part, triangular(self.cholesky[_rows(_sizes(self.mean), _tree.paths(part))]))

    def condition(self, values: Params, selection: Selection) -> Dense:
        """See :meth:`Gaussian.condition`."""
        check_arguments(Dense.condition, locals())
        part = _tree.as_selection(self.mean, selection)
        rest = _tree.complement(self.mean, part)
        keep, given = (_rows(_sizes(self.mean), _tree.paths(x)) for x in (part, rest))
        # With the given leaves first, the lower right block of the triangular factor is that of the conditional.
        lower = triangular(self.cholesky[np.concatenate([given, keep])])
        split = len(given)
        white = solve_triangular(
            lower[:split, :split], _flat(_tree.sub(values_outside(values, part, self.mean), rest)), lower=True
        )
        shift = ravel_pytree(part)[1](_matmul(lower[split:, :split], white))
        return Dense(_tree.add(part, shift), lower[split:, split:])

    def trace(self, diagonal: Params, quadratic: Any, dual: Dual | None = None) -> jax.Array:
        """See :meth:`Gaussian.trace`."""
        columns = jax.vmap(self._unflat)(self.cholesky.T)
        return jnp.sum(jax.vmap(quadratic)(columns))

    def precision_trace(self, diagonal: Params, quadratic: Any) -> jax.Array:
        """See :meth:`Gaussian.precision_trace`."""
        inverse = solve_triangular(self.cholesky, jnp.eye(len(self.cholesky), dtype=self.cholesky.dtype), lower=True)
        return jnp.sum(jax.vmap(quadratic)(jax.vmap(self._unflat)(inverse)))

    @property
    def num_directions(self) -> int:
        """See :attr:`Gaussian.num_directions`."""
        return len(self.cholesky)

    def realign(self, like: Params) -> Dense:
        """See :meth:`Gaussian.realign`."""
        mean = _tree.restructure(_tree.by_paths(self.mean), like)
        return Dense(mean, reordered(self.cholesky, _sizes(self.mean), _tree.paths(mean)))

    def add_precision(self, columns: Params) -> Dense:
        """See :meth:`Gaussian.add_precision`."""
        return self._after(_matmul(self.cholesky.T, jax.vmap(_flat)(columns).T))

    def add_diagonal_precision(self, diagonal: Params) -> Dense:
        """See :meth:`Gaussian.add_diagonal_precision`."""
        return self._after(self._whitened_root(diagonal))

    def diagonal_log_det_ratio(self, diagonal: Params) -> jax.Array:
        """See :meth:`Gaussian.diagonal_log_det_ratio`."""
        return 2 * jnp.sum(jnp.log(jnp.diagonal(_root_of_more(self._whitened_root(diagonal)))))

    def _whitened_root(self, diagonal: Params) -> jax.Array:
        """``L^T diag(h)^1/2``."""
        return self.cholesky.T * _flat(_roots(diagonal))

    def _after(self, root: jax.Array) -> Dense:
        """``L (I + R R^T)^-1 L^T``."""
        return Dense(self.mean, triangular(solve_triangular(_root_of_more(root), self.cholesky.T, lower=True).T))

    def stored(self) -> Stored:
        """See :meth:`Gaussian.stored`."""
        # The order of the leaves is stored, since a tree in other containers may order them differently.
        return Stored({"mean": self.mean}, {"cholesky": self.cholesky}, {"order": _tree.paths(self.mean)})

    @classmethod
    def stored_shapes(cls, settings: Mapping[str, Any], parameters: Sequence[Parameter]) -> Shapes:
        """See :meth:`Gaussian.stored_shapes`."""
        check_settings(settings, {"order"})
        paths = [p.path for p in parameters]
        if settings["order"] != paths:
            raise ValueError(f"order is {settings['order']!r}, and the parameters are {paths}")
        size = sum(math.prod(p.shape) for p in parameters)
        return Shapes({"mean": {p.path: Shape(p.shape) for p in parameters}}, {"cholesky": Shape((size, size))})

    @classmethod
    def from_stored(cls, stored: Stored) -> Dense:
        """See :meth:`Gaussian.from_stored`."""
        mean, sizes = stored.trees["mean"], _sizes(stored.trees["mean"])
        before = {path: sizes[path] for path in stored.settings["order"]}
        return Dense(mean, reordered(stored.arrays["cholesky"], before, list(sizes)))

    def check_values(self) -> None:
        """See :meth:`Gaussian.check_values`."""
        _tree.check_finite("mean", self.mean)
        _tree.check_finite("cholesky", self.cholesky)
        if bool(jnp.any(jnp.triu(self.cholesky, 1) != 0)):
            raise ValueError("cholesky is not lower triangular")
        _tree.check_positive("the diagonal of cholesky", jnp.diagonal(self.cholesky))


def _root_of_more(root: jax.Array) -> jax.Array:
    """The Cholesky factor of ``I + R R^T``, without the squares, which would cost half of the digits."""
    return triangular(jnp.concatenate([jnp.eye(len(root), dtype=root.dtype), root], axis=1))


def _roots(diagonal: Params) -> Params:
    # With the derivative 0 at 0, in place of infinity.
    return jax.tree.map(lambda h: jnp.where(h > 0, jnp.sqrt(jnp.where(h > 0, h, 1)), 0), diagonal)


def dense(mean: Params, covariance: jax.Array) -> Dense:
    """A Gaussian with a full covariance matrix, with O(D^2) memory and O(D^3) time: for heads and small networks.

    Args:
        mean: pytree of floating-point arrays with D numbers in all.
        covariance: (D, D), symmetric and positive definite, in the order of ``jax.tree.leaves(mean)``, each leaf in
            row-major order.

    Raises:
        ValueError: a wrong shape, non-finite values, a matrix that is not symmetric or not positive definite.

    Example:
        >>> g = btl.gaussians.dense({"w": jnp.zeros(2)}, jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> print(g.precision_mv({"w": jnp.array([3.0, 0.0])})["w"].round(4))
        [ 2. -1.]
    """
    check_arguments(dense, locals())
    mean = checked_mean(mean)
    check_real("covariance", covariance)
    covariance = jnp.asarray(covariance, jnp.result_type(*jax.tree.leaves(mean)))
    square = (_tree.size(mean), _tree.size(mean))
    if covariance.shape != square:
        raise ValueError(
            f"covariance has shape {covariance.shape}; mean has {square[0]} parameters, so {square} is needed"
        )
    _tree.check_finite("covariance", covariance)
    cholesky = jnp.linalg.cholesky(covariance)
    if _tree.is_concrete((covariance, cholesky)):
        _check_definite(covariance, cholesky)
    return Dense(mean, cholesky)


def dense_like(gaussian: Gaussian) -> Dense:
    """The same distribution with its full covariance, from the columns of its root."""
    flat, unflat = ravel_pytree(gaussian.mean)
    columns = jax.vmap(lambda e: _flat(gaussian.unwhiten(unflat(e))))(jnp.eye(len(flat), dtype=flat.dtype))
    return Dense(gaussian.mean, triangular(columns.T))


def _check_definite(covariance: jax.Array, cholesky: jax.Array) -> None:
    skew = float(jnp.max(jnp.abs(covariance - covariance.T)))
    largest = float(jnp.max(jnp.abs(covariance)))
    if skew > 100 * float(jnp.finfo(covariance.dtype).eps) * largest:
        raise ValueError(
            f"covariance is not symmetric: it differs from its transpose by {skew:.3g}; pass (C + C.T) / 2"
        )
    if not bool(jnp.all(jnp.isfinite(cholesky))):
        smallest = float(jnp.linalg.eigvalsh(covariance)[0])
        raise ValueError(
            f"covariance is not positive definite: its smallest eigenvalue is {smallest:.3g}; add a floor eps * I"
        )
