"""The curvature of a log likelihood in the parameters: its kinds, and the structures that store it."""

from bayestl.curvature._clipped import clipped_share
from bayestl.curvature._columns import ColumnsCurvature
from bayestl.curvature._dense import DenseCurvature, dense
from bayestl.curvature._diagonal import DiagonalCurvature, diagonal
from bayestl.curvature._dual import dual
from bayestl.curvature._kinds import Kind, empirical_fisher, fisher, ggn
from bayestl.curvature._kronecker import (
    KroneckerCurvature,
    expand,
    joined,
    kronecker,
    reduce,
    separate,
)
from bayestl.curvature._layers import find_layers
from bayestl.curvature._low_rank import Eigenpairs, lanczos, low_rank
from bayestl.curvature._products import product
from bayestl.curvature._structure import Builder, Curvature

__all__ = [
    "Builder",
    "ColumnsCurvature",
    "Curvature",
    "DenseCurvature",
    "DiagonalCurvature",
    "Eigenpairs",
    "Kind",
    "KroneckerCurvature",
    "clipped_share",
    "dense",
    "diagonal",
    "dual",
    "empirical_fisher",
    "expand",
    "find_layers",
    "fisher",
    "ggn",
    "joined",
    "kronecker",
    "lanczos",
    "low_rank",
    "product",
    "reduce",
    "separate",
]
