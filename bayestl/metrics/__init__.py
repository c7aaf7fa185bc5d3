"""Scores of predictive distributions against targets, and of scores: what they rank, and what not answering gains."""

from bayestl.metrics._accuracy import accuracy, macro_accuracy
from bayestl.metrics._bootstrap import Estimate, bootstrap
from bayestl.metrics._calibration import ReliabilityBins, ece, ece_equal_mass, reliability_bins
from bayestl.metrics._compare import Comparison, Difference, compare
from bayestl.metrics._evaluate import evaluate
from bayestl.metrics._grouping import grouping_loss
from bayestl.metrics._levels import ece_classwise, max_calibration_error, pit, quantile_calibration_error
from bayestl.metrics._ranks import auroc, average_precision, false_positive_rate
from bayestl.metrics._regression import crps, interval_coverage, rmse
from bayestl.metrics._report import report
from bayestl.metrics._score_table import Score, ScoreTable, across_seeds
from bayestl.metrics._scores import brier, nll
from bayestl.metrics._selective import (
    RiskCoverage,
    augrc,
    aurc,
    ause,
    coverage_at_risk,
    excess_aurc,
    risk_at_coverage,
    risk_coverage,
)
from bayestl.metrics._smooth import ece_smooth
from bayestl.metrics._unknowns import energy, mahalanobis, nearest_neighbours

__all__ = [
    "Comparison",
    "Difference",
    "Estimate",
    "ReliabilityBins",
    "RiskCoverage",
    "Score",
    "ScoreTable",
    "accuracy",
    "across_seeds",
    "augrc",
    "aurc",
    "auroc",
    "ause",
    "average_precision",
    "bootstrap",
    "brier",
    "compare",
    "coverage_at_risk",
    "crps",
    "ece",
    "ece_classwise",
    "ece_equal_mass",
    "ece_smooth",
    "energy",
    "evaluate",
    "excess_aurc",
    "false_positive_rate",
    "grouping_loss",
    "interval_coverage",
    "macro_accuracy",
    "mahalanobis",
    "max_calibration_error",
    "nearest_neighbours",
    "nll",
    "pit",
    "quantile_calibration_error",
    "reliability_bins",
    "report",
    "risk_at_coverage",
    "risk_coverage",
    "rmse",
]
