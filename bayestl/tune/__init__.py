"""How much to trust a source: criteria without validation data, paths over the scales of priors, averages."""

from bayestl.tune._average import Weights, average
from bayestl.tune._by_layer import has_layer_scales
from bayestl.tune._closest_scales import ClosestScales, closest_scales
from bayestl.tune._conditional_evidence import ConditionalEvidence, conditional_evidence
from bayestl.tune._criteria import (
    Criterion,
    Evidence,
    Fitted,
    KFold,
    Validation,
    evidence,
    k_fold,
    validation,
)
from bayestl.tune._data_emphasized_elbo import DataEmphasizedELBOState, data_emphasized_elbo
from bayestl.tune._edges import edges
from bayestl.tune._family import Family, isotropic_family
from bayestl.tune._further_error import further_error
from bayestl.tune._gram import mean_prior_variance, outputs_gram
from bayestl.tune._grid import Grid, Rung, grid
from bayestl.tune._groups import groups_by_class, random_groups
from bayestl.tune._layer_scales import LayerScales, layer_scales
from bayestl.tune._leave_out import LeaveOut, leave_out
from bayestl.tune._left_out import LeftOut
from bayestl.tune._left_out_weights import left_out_weights
from bayestl.tune._output_space import OutputSpace, output_space
from bayestl.tune._path import Path, path
from bayestl.tune._path_many import path_many
from bayestl.tune._product import product
from bayestl.tune._regression import (
    LinearLeaveOneOut,
    LinearModel,
    linear_leave_one_out,
    linear_model,
    noise_by_evidence,
    noise_variance,
)
from bayestl.tune._remaining_gain import remaining_gain
from bayestl.tune._scales import scale_prior, scales_around

__all__ = [
    "ClosestScales",
    "ConditionalEvidence",
    "Criterion",
    "DataEmphasizedELBOState",
    "Evidence",
    "Family",
    "Fitted",
    "Grid",
    "KFold",
    "LayerScales",
    "LeaveOut",
    "LeftOut",
    "LinearLeaveOneOut",
    "LinearModel",
    "OutputSpace",
    "Path",
    "Rung",
    "Validation",
    "Weights",
    "average",
    "closest_scales",
    "conditional_evidence",
    "data_emphasized_elbo",
    "edges",
    "evidence",
    "further_error",
    "grid",
    "groups_by_class",
    "has_layer_scales",
    "isotropic_family",
    "k_fold",
    "layer_scales",
    "leave_out",
    "left_out_weights",
    "linear_leave_one_out",
    "linear_model",
    "mean_prior_variance",
    "noise_by_evidence",
    "noise_variance",
    "output_space",
    "outputs_gram",
    "path",
    "path_many",
    "product",
    "random_groups",
    "remaining_gain",
    "scale_prior",
    "scales_around",
    "validation",
]
