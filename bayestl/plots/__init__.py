"""Figures on matplotlib axes, given or new. Nothing is shown or saved."""

from bayestl.plots._conflict import conflict
from bayestl.plots._history import history
from bayestl.plots._metric_against_n import metric_against_n
from bayestl.plots._pit import pit
from bayestl.plots._prediction_sets import prediction_sets
from bayestl.plots._prior_against_posterior import prior_against_posterior
from bayestl.plots._ranking import ranking
from bayestl.plots._reliability import reliability
from bayestl.plots._risk_coverage import risk_coverage
from bayestl.plots._unknowns import unknowns_histogram

__all__ = [
    "conflict",
    "history",
    "metric_against_n",
    "pit",
    "prediction_sets",
    "prior_against_posterior",
    "ranking",
    "reliability",
    "risk_coverage",
    "unknowns_histogram",
]
