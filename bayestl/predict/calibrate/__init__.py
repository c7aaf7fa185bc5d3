"""Probabilities that are made right after the fact, by held-out examples."""

from bayestl.predict.calibrate._deviation import deviation_factor
from bayestl.predict.calibrate._levels import LevelMap, levels
from bayestl.predict.calibrate._logits import LogitMap, dirichlet, temperature, vector
from bayestl.predict.calibrate._steps import LineMap, StepMap, histogram, isotonic

__all__ = [
    "LevelMap",
    "LineMap",
    "LogitMap",
    "StepMap",
    "deviation_factor",
    "dirichlet",
    "histogram",
    "isotonic",
    "levels",
    "temperature",
    "vector",
]
