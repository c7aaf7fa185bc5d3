"""Sets and intervals that hold the target with a given probability, whatever the model: conformal prediction."""

from bayestl.predict.conformal._classes import ClassSets, adaptive, classes, inverse_probability, regularized
from bayestl.predict.conformal._intervals import Intervals, JackknifePlus, intervals, jackknife_plus, quantiles

__all__ = [
    "ClassSets",
    "Intervals",
    "JackknifePlus",
    "adaptive",
    "classes",
    "intervals",
    "inverse_probability",
    "jackknife_plus",
    "quantiles",
    "regularized",
]
