"""Posteriors that are no Gaussians: points, draws, chains and mixtures."""

from bayestl.posteriors._chain import Chain, pooled
from bayestl.posteriors._mixture import Mixture
from bayestl.posteriors._point import Point
from bayestl.posteriors._samples import Samples

__all__ = ["Chain", "Mixture", "Point", "Samples", "pooled"]
