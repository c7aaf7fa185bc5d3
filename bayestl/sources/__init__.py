"""Sources: from what a source task left behind to a prior."""

from bayestl.sources import conventions
from bayestl.sources._extend import extend
from bayestl.sources._fisher import fisher
from bayestl.sources._from_checkpoints import from_checkpoints
from bayestl.sources._from_iterates import IterateCollector, Iterates, from_iterates
from bayestl.sources._from_samples import from_samples
from bayestl.sources._match import Match, match
from bayestl.sources._mixture import SourceMixture, mixture
from bayestl.sources._point import point
from bayestl.sources._product import product
from bayestl.sources._student_t import StudentT, student_t
from bayestl.sources._word_vectors import WordPrior, WordReport, word_vectors

__all__ = [
    "IterateCollector",
    "Iterates",
    "Match",
    "SourceMixture",
    "StudentT",
    "WordPrior",
    "WordReport",
    "conventions",
    "extend",
    "fisher",
    "from_checkpoints",
    "from_iterates",
    "from_samples",
    "match",
    "mixture",
    "point",
    "product",
    "student_t",
    "word_vectors",
]
