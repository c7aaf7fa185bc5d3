"""Checks that every constructor of a Gaussian makes, on concrete values only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Params

_SAME = "give both the same tree and shapes; a new head takes its own prior with gaussians.by_path"


def checked_mean(mean: Params) -> Params:
    """The mean as arrays of at least float32."""
    _tree.check_floating("mean", mean)
    mean = _tree.at_least_float32(mean)
    _tree.check_finite("mean", mean, "the source diverged or was read wrongly")
    return mean


def checked_variances(name: str, value: Any, mean: Params, floor: str) -> Params:
    """Variances as a tree: one positive number for all, one per leaf, or one per parameter."""
    if jax.tree.structure(value) == jax.tree.structure(0) and jnp.ndim(value) == 0:
        value = jax.tree.map(lambda m: jnp.asarray(value, m.dtype), mean)
    if jax.tree.structure(value) != jax.tree.structure(mean):
        _tree.check_same_structure(name, value, "mean", mean, _SAME)
    value = jax.tree.map(lambda v, m: jnp.asarray(v, jnp.result_type(m, jnp.float32)), value, mean)
    shapes = jax.tree.map(lambda v, m: v if v.ndim == 0 else jnp.zeros(()), value, mean)
    expected = jax.tree.map(lambda v, m, s: s if v.ndim == 0 else m, value, mean, shapes)
    _tree.check_same_structure(name, value, "mean", expected, _SAME)
    _tree.check_positive(name, value, floor)
    return value


def checked_factor(factor: Params, mean: Params) -> tuple[Params, int]:
    """The low-rank factor, leaves (k, *shape), and its k."""
    _tree.check_floating("factor", factor)
    factor = _tree.at_least_float32(factor)
    ranks = {path: leaf.shape[0] if leaf.ndim else None for path, leaf in _tree.by_paths(factor).items()}
    if None in ranks.values() or len(set(ranks.values())) != 1:
        raise ValueError(f"factor leaves must share a leading rank axis (k, *shape); the leading lengths are {ranks}")
    rank = next(iter(ranks.values()))
    if not rank:
        raise ValueError("factor has rank 0; use gaussians.diagonal for a Gaussian without a low-rank part")
    rows = jax.tree.map(lambda f: f[0], factor)
    _tree.check_same_structure("factor (without its rank axis)", rows, "mean", mean, _SAME)
    _tree.check_finite("factor", factor)
    return factor, rank
