"""Figures, drawn on matplotlib axes that are given or made. They never show or save anything themselves."""

from bayestl.plots._metric_against_n import metric_against_n
from bayestl.plots._reliability import reliability

__all__ = ["metric_against_n", "reliability"]
