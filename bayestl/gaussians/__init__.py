"""Gaussians over parameter pytrees: source summaries, priors and posteriors, all one type."""

from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._by_path import Blocks, by_path
from bayestl.gaussians._dense import Dense, dense
from bayestl.gaussians._diagonal import Diagonal, diagonal, isotropic
from bayestl.gaussians._io import load, read_header, save
from bayestl.gaussians._kl import kl_divergence
from bayestl.gaussians._low_rank import LowRank, low_rank

__all__ = [
    "Blocks",
    "Dense",
    "Diagonal",
    "Gaussian",
    "LowRank",
    "by_path",
    "dense",
    "diagonal",
    "isotropic",
    "kl_divergence",
    "load",
    "low_rank",
    "read_header",
    "save",
]
