"""Training: one loop for single runs and for many at once, their checkpoints, and the placement of their arrays."""

from bayestl._placement import shard_params
from bayestl.training._checkpoint import Checkpoint
from bayestl.training._fit import fit
from bayestl.training._fit_many import fit_many
from bayestl.training._identity import digest, traced_digest
from bayestl.training._loop import Transform, all_finite
from bayestl.training._members import Vectorize, sequentially
from bayestl.training._memory import MemoryEstimate, estimate_memory
from bayestl.training._progress import Callback, EarlyStopping, Progress
from bayestl.training._results import FitResult, ManyResult
from bayestl.training._ring import Ring
from bayestl.training._validation import point_of

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "FitResult",
    "ManyResult",
    "MemoryEstimate",
    "Progress",
    "Ring",
    "Transform",
    "Vectorize",
    "all_finite",
    "digest",
    "estimate_memory",
    "fit",
    "fit_many",
    "point_of",
    "sequentially",
    "shard_params",
    "traced_digest",
]
