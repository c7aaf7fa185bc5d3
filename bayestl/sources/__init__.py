"""Sources: from what a source task left behind to a Gaussian."""

from bayestl.sources import conventions
from bayestl.sources._from_iterates import IterateCollector, Iterates, from_iterates
from bayestl.sources._from_samples import from_samples
from bayestl.sources._match import Match, match
from bayestl.sources._point import point

__all__ = [
    "IterateCollector",
    "Iterates",
    "Match",
    "conventions",
    "from_iterates",
    "from_samples",
    "match",
    "point",
]
