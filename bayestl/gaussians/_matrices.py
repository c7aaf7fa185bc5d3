"""Symmetric matrices that Gaussians are combined with, described by what Gaussians need of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from bayestl._types import Inputs, Outputs, Params
from bayestl.gaussians._matrix_layout import MatrixLayout


class Dual(NamedTuple):
    """A symmetric matrix A given by its traces with other matrices: the other way to compute ``tr(A B)``.

    Attributes:
        trace: ``(diagonal, quadratic) -> tr(A B)`` for a symmetric B given by its diagonal and by
            ``quadratic(v) = v^T B v``.
        num_directions: how often ``trace`` calls ``quadratic``.
    """

    trace: Callable[[Params, Any], jax.Array]
    num_directions: int


class Columns(NamedTuple):
    """``I + Q diag(lam) Q^T``: the low-rank part of a Gaussian, in the coordinates that the rest of it whitens to.

    Attributes:
        basis: Q, leaves (k, *shape); its columns are orthonormal, or zero.
        eigenvalues: lam > -1, (k,).
        remaining: 1 + lam, (k,), where it is known to more digits than lam has of it; None for no more.
    """

    basis: Params
    eigenvalues: jax.Array
    remaining: jax.Array | None = None

    @property
    def ratios(self) -> jax.Array:
        """``1 + lam``: the variances along the columns, those of the rest being 1."""
        return 1 + self.eigenvalues if self.remaining is None else self.remaining


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KroneckerFactors:
    """The precision of one layer, ``A (x) G``: that of ``sum_ij sum_oq M_io A_ij G_oq M_jq`` for its matrix M.

    Attributes:
        inputs: A, (g, I, I).
        outputs: G, (g, O, O).
        layout: which parameters are M (g, I, O).
    """

    inputs: Inputs
    outputs: Outputs
    layout: MatrixLayout = dataclasses.field(metadata={"static": True})


class KroneckerPrecision(NamedTuple):
    """A Kronecker product per layer, and a diagonal for all other parameters.

    Attributes:
        layers: the factors.
        diagonal: h of the parameters that belong to no layer, None at all others.
    """

    layers: tuple[KroneckerFactors, ...]
    diagonal: Params
