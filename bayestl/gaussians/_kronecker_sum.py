"""A layer whose covariance is diagonal in a Kronecker basis, with one more Kronecker product in its precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from bayestl.gaussians._matrices import KroneckerFactors
from bayestl.gaussians._matrix_layout import MatrixLayout


def summed(
    scale: jax.Array, inputs: Any, outputs: Any, spectrum: jax.Array, factors: KroneckerFactors
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """A new basis, the variances in it, and by how much the log determinant is lower.

    The eigenvectors of the sum, as far as one basis of inputs and one of outputs can hold them: those of what the sum
    is to inputs alone and to outputs alone, its partial traces. In this basis the diagonal of the precision is kept,
    which makes of all Gaussians with these eigenvectors the one of least ``KL(q || exact)``.

    Args:
        scale: d, (I,) or one number.
        inputs: Q_in, (g, I, I) or (1, I, I).
        outputs: Q_out, (g, O, O) or (1, O, O).
        spectrum: lam, (g, I, O).
        factors: of the precision that comes in.

    Returns:
        The new Q_in, Q_out and lam, and a scalar >= 0, which the evidence pays half of: an upper bound of what the
        exact sum would give.
    """
    rows = scale[:, None] if scale.ndim else scale
    added_inputs = rows * factors.inputs * rows.mT if scale.ndim else scale**2 * factors.inputs
    before, added_outputs = 1 / spectrum, factors.outputs
    traces = (jnp.trace(x, axis1=-2, axis2=-1)[:, None] for x in (added_inputs, added_outputs))
    of_inputs, of_outputs = traces
    new_inputs = _basis(inputs, jnp.sum(before, axis=2), added_inputs, of_outputs)
    new_outputs = _basis(outputs, jnp.sum(before, axis=1), added_outputs, of_inputs)
    turn_inputs, turn_outputs = (_product(new.mT, old) for new, old in ((new_inputs, inputs), (new_outputs, outputs)))
    after = _product(_product(turn_inputs**2, before), (turn_outputs**2).mT)
    after += _along(new_inputs, added_inputs)[:, :, None] * _along(new_outputs, added_outputs)[:, None, :]
    # Pair by pair in order of size, so that no two large numbers are subtracted.
    ratios = jnp.sort(after.ravel()) / jnp.sort(before.ravel())
    return new_inputs, new_outputs, 1 / after, jnp.sum(jnp.log(ratios))


def _basis(old: jax.Array, values: jax.Array, added: jax.Array, weight: jax.Array) -> jax.Array:
    """Eigenvectors of the partial trace ``Q diag(values) Q^T + weight * added``; groups that share both share these."""
    if old.shape[-1] == 1:
        return old
    weighted = weight[:, :, None] * added
    if len(old) == len(added) == 1:
        values, weighted = (jnp.sum(x, axis=0, keepdims=True) for x in (values, weighted))
    total = _product(old * values[:, None, :], old.mT) + weighted
    # Derivatives of eigenvectors do not exist where eigenvalues are equal; none is asked for.
    return jax.lax.stop_gradient(jnp.linalg.eigh(0.5 * (total + total.mT))[1])


def _along(basis: jax.Array, matrix: jax.Array) -> jax.Array:
    """The diagonal of ``V^T A V``, (g, n)."""
    return jnp.sum(basis * _product(matrix, basis), axis=-2)


def same_matrix(one: MatrixLayout, other: MatrixLayout, shape: tuple[int, ...]) -> bool:
    """Whether two layouts make the same matrix of a leaf of this shape, by whatever steps."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    first, second = (np.asarray(layout.rearrangement(places)) for layout in (one, other))
    return one.paths == other.paths and np.array_equal(first, second)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)
