"""Gaussians over parameter pytrees: source summaries, priors and posteriors, all one type."""

from bayestl._rearrangement import Rearrangement
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._blocks import Blocks
from bayestl.gaussians._by_path import by_path
from bayestl.gaussians._compress import compress
from bayestl.gaussians._dense import Dense, dense
from bayestl.gaussians._diagonal import Diagonal, diagonal, from_diagonal_precision, isotropic
from bayestl.gaussians._io import load, read_header, save
from bayestl.gaussians._kl import kl_divergence
from bayestl.gaussians._kronecker import Kronecker
from bayestl.gaussians._kronecker_precision import from_kronecker_precision
from bayestl.gaussians._low_rank import LowRank, low_rank
from bayestl.gaussians._matrices import Columns, Dual, KroneckerFactors, KroneckerPrecision
from bayestl.gaussians._matrix_layout import MatrixLayout
from bayestl.gaussians._matrix_normal import kronecker
from bayestl.gaussians._storable import Parameter, Shape, Shapes, Stored

__all__ = [
    "Blocks",
    "Columns",
    "Dense",
    "Diagonal",
    "Dual",
    "Gaussian",
    "Kronecker",
    "KroneckerFactors",
    "KroneckerPrecision",
    "LowRank",
    "MatrixLayout",
    "Parameter",
    "Rearrangement",
    "Shape",
    "Shapes",
    "Stored",
    "by_path",
    "compress",
    "dense",
    "diagonal",
    "from_diagonal_precision",
    "from_kronecker_precision",
    "isotropic",
    "kl_divergence",
    "kronecker",
    "load",
    "low_rank",
    "read_header",
    "save",
]
