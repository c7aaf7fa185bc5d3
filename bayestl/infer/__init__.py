"""Inference: from a log joint to a posterior."""

from bayestl._condition import Conditioned, condition
from bayestl.infer._as_ensemble import as_ensemble
from bayestl.infer._cyclical import cosine_cycles, cyclical_sghmc, cyclical_sgld
from bayestl.infer._ensemble import ensemble
from bayestl.infer._evidence import log_evidence
from bayestl.infer._ivon import IVONInfo, IVONState, ivon
from bayestl.infer._laplace import laplace
from bayestl.infer._low_rank_vi import LowRankVIInfo, LowRankVIState, low_rank_vi
from bayestl.infer._map_estimate import MAPInfo, MAPState, map_estimate
from bayestl.infer._mean_field_vi import MeanFieldVIInfo, MeanFieldVIState, mean_field_vi
from bayestl.infer._proximal_map import ProximalMAPState, proximal_map
from bayestl.infer._randomized import Randomized, random_anchors, random_anchors_and_targets
from bayestl.infer._sample_writer import SampleWriter, read_samples
from bayestl.infer._sampling import prior_preconditioner
from bayestl.infer._scale_evidence import ScaleEvidence, scale_evidence
from bayestl.infer._sghmc import SGHMCInfo, SGHMCState, sghmc
from bayestl.infer._sgld import SGLDInfo, SGLDState, sgld
from bayestl.infer._swag import SWAGState, swag
from bayestl.infer._variational import monte_carlo_kl

__all__ = [
    "Conditioned",
    "IVONInfo",
    "IVONState",
    "LowRankVIInfo",
    "LowRankVIState",
    "MAPInfo",
    "MAPState",
    "MeanFieldVIInfo",
    "MeanFieldVIState",
    "ProximalMAPState",
    "Randomized",
    "SGHMCInfo",
    "SGHMCState",
    "SGLDInfo",
    "SGLDState",
    "SWAGState",
    "SampleWriter",
    "ScaleEvidence",
    "as_ensemble",
    "condition",
    "cosine_cycles",
    "cyclical_sghmc",
    "cyclical_sgld",
    "ensemble",
    "ivon",
    "laplace",
    "log_evidence",
    "low_rank_vi",
    "map_estimate",
    "mean_field_vi",
    "monte_carlo_kl",
    "prior_preconditioner",
    "proximal_map",
    "random_anchors",
    "random_anchors_and_targets",
    "read_samples",
    "scale_evidence",
    "sghmc",
    "sgld",
    "swag",
]
