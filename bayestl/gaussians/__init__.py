"""Gaussians over parameter pytrees: source summaries, priors and posteriors, all one type."""

from bayestl._rearrangement import Rearrangement
from bayestl.gaussians._add_diagonal_precision import add_diagonal_precision
from bayestl.gaussians._add_precision import add_precision
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._by_path import Blocks, by_path
from bayestl.gaussians._dense import Dense, dense
from bayestl.gaussians._diagonal import Diagonal, diagonal, isotropic
from bayestl.gaussians._io import load, read_header, save
from bayestl.gaussians._kl import kl_divergence
from bayestl.gaussians._kronecker import Kronecker, kronecker
from bayestl.gaussians._low_rank import LowRank, low_rank
from bayestl.gaussians._low_rank_update import LowRankUpdate
from bayestl.gaussians._matrix_layout import MatrixLayout

__all__ = [
    "Blocks",
    "Dense",
    "Diagonal",
    "Gaussian",
    "Kronecker",
    "LowRank",
    "LowRankUpdate",
    "MatrixLayout",
    "Rearrangement",
    "add_diagonal_precision",
    "add_precision",
    "by_path",
    "dense",
    "diagonal",
    "isotropic",
    "kl_divergence",
    "kronecker",
    "load",
    "low_rank",
    "read_header",
    "save",
]
