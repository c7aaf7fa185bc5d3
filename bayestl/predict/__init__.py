"""Posterior to predictive distribution of new targets."""

from bayestl.predict import acquisition, calibrate, conformal
from bayestl.predict._averages import AveragedClasses, AveragedMoments
from bayestl.predict._from_probabilities import from_probabilities
from bayestl.predict._gaussian_outputs import GaussianOutputs
from bayestl.predict._gaussian_predictive import GaussianPredictive, gaussian_noise
from bayestl.predict._joint import JointPredictive, joint_from_samples
from bayestl.predict._linearized import linearized
from bayestl.predict._linearized_joint import linearized_joint
from bayestl.predict._links import (
    function_variance,
    mean_field_0,
    mean_field_1,
    mean_field_2,
    probit,
    quadrature,
    sampled,
)
from bayestl.predict._mc_dropout import mc_dropout
from bayestl.predict._monte_carlo import monte_carlo
from bayestl.predict._monte_carlo_average import monte_carlo_average
from bayestl.predict._predictive import Predictive

__all__ = [
    "AveragedClasses",
    "AveragedMoments",
    "GaussianOutputs",
    "GaussianPredictive",
    "JointPredictive",
    "Predictive",
    "acquisition",
    "calibrate",
    "conformal",
    "from_probabilities",
    "function_variance",
    "gaussian_noise",
    "joint_from_samples",
    "linearized",
    "linearized_joint",
    "mc_dropout",
    "mean_field_0",
    "mean_field_1",
    "mean_field_2",
    "monte_carlo",
    "monte_carlo_average",
    "probit",
    "quadrature",
    "sampled",
]
