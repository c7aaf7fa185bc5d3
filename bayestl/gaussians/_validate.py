"""Checks that every constructor of a Gaussian makes, on concrete values only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_tree
from bayestl._types import Params
from bayestl.gaussians._storable import broadcasts

_SAME = "give both the same tree and shapes; a new head takes its own prior with gaussians.by_path"


def checked_mean(mean: Params) -> Params:
    """The mean as arrays of at least float32."""
    _tree.check_floating("mean", mean)
    mean = _tree.at_least_float32(mean)
    _tree.check_finite("mean", mean, "the source diverged or was read wrongly")
    return mean


def checked_variances(name: str, value: Any, mean: Params, floor: str) -> Params:
    """Positive numbers as a tree: one for all, or for each leaf an array that broadcasts to it."""
    if jax.tree.structure(value) == jax.tree.structure(0) and jnp.ndim(value) == 0:
        check_real(name, value)
        value = jax.tree.map(lambda m: jnp.asarray(value, m.dtype), mean)
    check_real(name, value)
    check_broadcasting(name, value, "mean", mean, _SAME)
    value = jax.tree.map(lambda v, m: jnp.asarray(v, jnp.result_type(m, jnp.float32)), value, mean)
    _tree.check_positive(name, value, floor)
    return value


def check_real(name: str, tree: Params) -> None:
    """Raise a ``TypeError`` if a leaf holds truth values or complex numbers, which would be converted silently."""
    check_tree(name, tree)
    for path, leaf in _tree.by_paths(tree).items():
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.bool_) or jnp.issubdtype(dtype, jnp.complexfloating):
            where = f"{name} at {path!r}" if path else name
            raise TypeError(f"{where} has dtype {dtype}; real numbers are needed: convert with astype(float), or .real")


def check_added(eps: Any) -> None:
    """Refuse an ``eps`` that cannot be added to variances, if its value is known."""
    check_real("eps", eps)
    if not jax.tree_util.all_leaves([eps]) or jnp.ndim(eps) != 0:
        shapes = jax.tree.map(jnp.shape, eps)
        raise ValueError(f"eps has shape {shapes}; inflate adds one number to all variances")
    if _tree.is_concrete(eps) and not 0 <= float(eps) < float("inf"):
        raise ValueError(f"eps is {float(eps):.4g}; inflate adds it to all variances, so it must be >= 0 and finite")


def values_outside(values: Params, part: Params, mean: Params) -> Params:
    """The leaves of ``values`` that a selection leaves out, of which a conditional is given the values.

    Raises:
        ValueError: values of another structure, or other shapes, than ``mean``.
    """
    outside = _tree.complement(values, part)
    _tree.check_same_structure("values", outside, "mean", _tree.complement(mean, part), "give whole parameters")
    return outside


def check_broadcasting(name: str, value: Params, other: str, mean: Params, fix: str) -> None:
    """Raise a ``ValueError`` unless ``value`` has the structure of ``mean`` and shapes that broadcast to its shapes."""
    leaves = _tree.by_paths(value)
    for path, leaf in _tree.by_paths(mean).items():
        shape = jnp.shape(leaves[path]) if path in leaves else ()
        if not broadcasts(shape, leaf.shape):
            raise ValueError(
                f"{name} and {other} differ at {path!r}: {shape} against {leaf.shape}, to which it does not broadcast; "
                f"{fix}, or give one number per leaf, or one per row as (V, 1) for (V, E)"
            )
    if jax.tree.structure(value) != jax.tree.structure(mean):
        shapes = {path: leaf.shape for path, leaf in _tree.by_paths(mean).items()}

        def whole(path: Any, leaf: Any) -> np.ndarray:
            return np.broadcast_to(0.0, shapes.get(_tree.path_string(path), jnp.shape(leaf)))

        _tree.check_same_structure(name, jax.tree_util.tree_map_with_path(whole, value), other, mean, fix)


def leafwise(c: Any, like: Params, name: str = "c") -> Params:
    """``c`` > 0 as one number per leaf of ``like``: a number is repeated, a tree of numbers is checked.

    Raises:
        ValueError: a tree that differs from ``like``, a leaf that is not a single number, or one that is not positive.
    """
    fix = "give a scalar, or one number per leaf"
    check_real(name, c)
    _check_alone(c, name, fix)
    if jax.tree.structure(c) == jax.tree.structure(0):
        _tree.check_positive(name, c, f"{name} must be positive")
        return jax.tree.map(lambda _: c, like)
    marks = jax.tree.map(lambda _: 0.0, like)
    _tree.check_same_structure(name, c, "the leaves of mean", marks, fix)
    _tree.check_positive(name, c, f"{name} must be positive")
    return c


def factors(c: Any, like: Params) -> Params:
    """``c`` > 0 as a factor for every leaf of ``like``: a number is repeated, a tree is checked.

    Raises:
        ValueError: a tree that differs from ``like``, a leaf that does not broadcast, or one that is not positive.
    """
    fix = "give a scalar, or one number per leaf"
    check_real("c", c)
    alone = jax.tree.structure(0)
    if jax.tree.structure(c) == alone and jnp.ndim(c) == 0:
        _tree.check_positive("c", c, "c must be positive")
        return jax.tree.map(lambda _: c, like)
    if jax.tree.structure(like) != alone:
        _check_alone(c, "c", fix)
    check_broadcasting("c", c, "mean", like, fix)
    _tree.check_positive("c", c, "c must be positive")
    return c


def _check_alone(c: Any, name: str, fix: str) -> None:
    """Refuse an array where a number is needed, unless the tree is itself a single array."""
    if jax.tree.structure(c) == jax.tree.structure(0) and jnp.ndim(c) != 0:
        raise ValueError(f"{name} has shape {jnp.shape(c)}; {fix}")


def checked_factor(factor: Params, mean: Params) -> tuple[Params, int]:
    """The low-rank factor, leaves (k, *shape), and its rank k."""
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
