"""Inference: from a log joint to a posterior."""

from bayestl._condition import Conditioned, condition
from bayestl._infos import ELBOInfo, SamplerInfo
from bayestl.infer._as_ensemble import as_ensemble
from bayestl.infer._chain_tasks import Link, chain_tasks
from bayestl.infer._checks import check_params, warn_weight_decay
from bayestl.infer._cyclical import cosine_cycles, cyclical_sghmc, cyclical_sgld
from bayestl.infer._ensemble import ensemble
from bayestl.infer._evidence import log_evidence
from bayestl.infer._ivon import IVONState, ivon
from bayestl.infer._laplace import laplace
from bayestl.infer._low_rank_vi import LowRankVIState, low_rank_vi
from bayestl.infer._map_estimate import MAPInfo, MAPState, map_estimate
from bayestl.infer._mean_field_vi import MeanFieldVIState, mean_field_vi
from bayestl.infer._proximal_map import ProximalMAPState, proximal_map
from bayestl.infer._randomized import Randomized, random_anchors, random_anchors_and_targets
from bayestl.infer._sample_writer import SampleWriter, read_samples
from bayestl.infer._sampling import prior_preconditioner
from bayestl.infer._scale_evidence import ScaleEvidence, scale_evidence
from bayestl.infer._sghmc import SGHMCState, sghmc
from bayestl.infer._sgld import SGLDState, sgld
from bayestl.infer._swag import SWAGState, swag
from bayestl.infer._variational import minimise, monte_carlo_kl, negative_elbo, sticking_the_landing

__all__ = [
    "Conditioned",
    "ELBOInfo",
    "IVONState",
    "Link",
    "LowRankVIState",
    "MAPInfo",
    "MAPState",
    "MeanFieldVIState",
    "ProximalMAPState",
    "Randomized",
    "SGHMCState",
    "SGLDState",
    "SWAGState",
    "SampleWriter",
    "SamplerInfo",
    "ScaleEvidence",
    "as_ensemble",
    "chain_tasks",
    "check_params",
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
    "minimise",
    "monte_carlo_kl",
    "negative_elbo",
    "prior_preconditioner",
    "proximal_map",
    "random_anchors",
    "random_anchors_and_targets",
    "read_samples",
    "scale_evidence",
    "sghmc",
    "sgld",
    "sticking_the_landing",
    "swag",
    "warn_weight_decay",
]
