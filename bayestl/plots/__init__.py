"""Figures on matplotlib axes, given or new. Nothing is shown or saved."""

from bayestl.plots._conflict import conflict
from bayestl.plots._history import history
from bayestl.plots._metric_against_n import metric_against_n
from bayestl.plots._ranking import ranking
from bayestl.plots._reliability import reliability

__all__ = ["conflict", "history", "metric_against_n", "ranking", "reliability"]
