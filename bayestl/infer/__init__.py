"""Inference: from a log joint to a posterior."""

from bayestl.infer._map_estimate import MAPInfo, MAPState, map_estimate
from bayestl.infer._proximal_map import ProximalMAPState, proximal_map

__all__ = ["MAPInfo", "MAPState", "ProximalMAPState", "map_estimate", "proximal_map"]
