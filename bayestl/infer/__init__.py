"""Inference: from a log joint to a posterior."""

from bayestl.infer._map_estimate import MAPInfo, MAPState, map_estimate
from bayestl.infer._mean_field_vi import MeanFieldVIInfo, MeanFieldVIState, mean_field_vi, monte_carlo_kl
from bayestl.infer._proximal_map import ProximalMAPState, proximal_map

__all__ = [
    "MAPInfo",
    "MAPState",
    "MeanFieldVIInfo",
    "MeanFieldVIState",
    "ProximalMAPState",
    "map_estimate",
    "mean_field_vi",
    "monte_carlo_kl",
    "proximal_map",
]
