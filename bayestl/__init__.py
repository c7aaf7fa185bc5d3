"""Bayesian transfer learning: source weights become a Gaussian prior, the target posterior follows by Bayes' rule."""

import importlib
from typing import TYPE_CHECKING, Any

from bayestl import _tree as tree
from bayestl import (
    bridges,
    curvature,
    diagnostics,
    gaussians,
    infer,
    layers,
    likelihoods,
    metrics,
    passes,
    posteriors,
    predict,
    sources,
    transferability,
    tune,
)
from bayestl._log_joint import LogJoint, LossTerms
from bayestl._types import Batch, Inference, Net, Posterior, Prior
from bayestl.posteriors import Mixture, Point, Samples, load, save
from bayestl.training import (
    Checkpoint,
    EarlyStopping,
    FitResult,
    ManyResult,
    MemoryEstimate,
    Progress,
    estimate_memory,
    fit,
    fit_many,
    sequentially,
    shard_params,
)
from bayestl.transfers import TransferResult, Trust, transfer

if TYPE_CHECKING:
    from bayestl import control, data, nets, plots, pretrained

__version__ = "0.2.0"

__all__ = [
    "Batch",
    "Checkpoint",
    "EarlyStopping",
    "FitResult",
    "Inference",
    "LogJoint",
    "LossTerms",
    "ManyResult",
    "MemoryEstimate",
    "Mixture",
    "Net",
    "Point",
    "Posterior",
    "Prior",
    "Progress",
    "Samples",
    "TransferResult",
    "Trust",
    "__version__",
    "bridges",
    "control",
    "curvature",
    "data",
    "diagnostics",
    "estimate_memory",
    "fit",
    "fit_many",
    "gaussians",
    "infer",
    "layers",
    "likelihoods",
    "load",
    "metrics",
    "nets",
    "passes",
    "plots",
    "posteriors",
    "predict",
    "pretrained",
    "save",
    "sequentially",
    "shard_params",
    "sources",
    "transfer",
    "transferability",
    "tree",
    "tune",
]

_EDGES = ("control", "data", "nets", "plots", "pretrained")


def __getattr__(name: str) -> Any:
    # The edges, whose libraries are heavy, are imported when first used.
    if name in _EDGES:
        return importlib.import_module(f"bayestl.{name}")
    raise AttributeError(f"module 'bayestl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
