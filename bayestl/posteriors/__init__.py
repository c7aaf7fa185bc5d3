"""Posteriors that are not Gaussians: points, draws, chains, mixtures; and those of a part, the rest held fixed."""

from bayestl.posteriors._chain import Chain, pooled
from bayestl.posteriors._files import Loaded, load, save
from bayestl.posteriors._mixture import Mixture
from bayestl.posteriors._part import Part, check_equal
from bayestl.posteriors._point import Point
from bayestl.posteriors._samples import Samples

__all__ = ["Chain", "Loaded", "Mixture", "Part", "Point", "Samples", "check_equal", "load", "pooled", "save"]
