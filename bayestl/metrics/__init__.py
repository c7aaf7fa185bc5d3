"""Scores of predictive distributions against targets: per-example means, in nats where they are log probabilities."""

from bayestl.metrics._accuracy import accuracy, macro_accuracy
from bayestl.metrics._calibration import ReliabilityBins, ece, ece_equal_mass, reliability_bins
from bayestl.metrics._evaluate import evaluate
from bayestl.metrics._regression import crps, interval_coverage, rmse
from bayestl.metrics._report import report
from bayestl.metrics._scores import brier, nll

__all__ = [
    "ReliabilityBins",
    "accuracy",
    "brier",
    "crps",
    "ece",
    "ece_equal_mass",
    "evaluate",
    "interval_coverage",
    "macro_accuracy",
    "nll",
    "reliability_bins",
    "report",
    "rmse",
]
