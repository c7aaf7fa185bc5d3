"""From the raw outputs of a network to a numpyro distribution over its targets.

A likelihood is one file with a frozen dataclass that returns a distribution. Where it has something better than
automatic differentiation and quadrature, it defines it in methods of its own (:mod:`bayestl.likelihoods._methods` lists
them).
"""

from bayestl.likelihoods._base import base
from bayestl.likelihoods._bernoulli import Bernoulli, bernoulli
from bayestl.likelihoods._beta import Beta, beta
from bayestl.likelihoods._categorical import Categorical, at_labels, categorical
from bayestl.likelihoods._check import check
from bayestl.likelihoods._check_shapes import check_shapes, check_targets_shape
from bayestl.likelihoods._check_values import TargetCheck, check_real_targets, check_values, target_check
from bayestl.likelihoods._class_weighted import ClassWeighted, class_weighted
from bayestl.likelihoods._classes import class_log_probs, class_probs
from bayestl.likelihoods._consistent import check_inherited, check_normalised, check_samples
from bayestl.likelihoods._distribution import Description, describe, describe_predictive
from bayestl.likelihoods._expected import expected_target
from bayestl.likelihoods._focal import Focal, focal
from bayestl.likelihoods._from_function import FromFunction, from_function
from bayestl.likelihoods._given import Given, given
from bayestl.likelihoods._hessian import clipped_share, hessian_root, knows_hessian, negative_and_absolute
from bayestl.likelihoods._heteroscedastic_normal import HeteroscedasticNormal, heteroscedastic_normal
from bayestl.likelihoods._label_smoothed import LabelSmoothed, label_smoothed
from bayestl.likelihoods._laplace import Laplace, laplace
from bayestl.likelihoods._logits import mean_field_moderated, probit_moderated
from bayestl.likelihoods._methods import (
    GaussianNoise,
    gaussian_noise,
    has_logits,
    own,
    predictive_distribution,
    target_noise,
)
from bayestl.likelihoods._multi_label import MultiLabel, multi_label
from bayestl.likelihoods._negative_binomial import NegativeBinomial, negative_binomial
from bayestl.likelihoods._normal import Normal, normal
from bayestl.likelihoods._ordinal import Ordinal, ordinal
from bayestl.likelihoods._poisson import Poisson, poisson
from bayestl.likelihoods._student_t import StudentT, student_t

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "ClassWeighted",
    "Description",
    "Focal",
    "FromFunction",
    "GaussianNoise",
    "Given",
    "HeteroscedasticNormal",
    "LabelSmoothed",
    "Laplace",
    "MultiLabel",
    "NegativeBinomial",
    "Normal",
    "Ordinal",
    "Poisson",
    "StudentT",
    "TargetCheck",
    "at_labels",
    "base",
    "bernoulli",
    "beta",
    "categorical",
    "check",
    "check_inherited",
    "check_normalised",
    "check_real_targets",
    "check_samples",
    "check_shapes",
    "check_targets_shape",
    "check_values",
    "class_log_probs",
    "class_probs",
    "class_weighted",
    "clipped_share",
    "describe",
    "describe_predictive",
    "expected_target",
    "focal",
    "from_function",
    "gaussian_noise",
    "given",
    "has_logits",
    "hessian_root",
    "heteroscedastic_normal",
    "knows_hessian",
    "label_smoothed",
    "laplace",
    "mean_field_moderated",
    "multi_label",
    "negative_and_absolute",
    "negative_binomial",
    "normal",
    "ordinal",
    "own",
    "poisson",
    "predictive_distribution",
    "probit_moderated",
    "student_t",
    "target_check",
    "target_noise",
]
