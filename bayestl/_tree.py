"""Algebra on parameter pytrees: products, noise, paths, selections. Public as ``bayestl.tree``.

A *path* is the keys on the way to a leaf joined by ``/``; a key that itself holds ``/`` or ``~`` is written as in JSON
pointers (``~1`` and ``~0``). A *pattern* is a path in which ``*`` stands for any one key (or part of one) and ``**``
for any number of keys, none included. A *selection* of parameters is the same tree with ``None`` at the leaves left
out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.lax import Precision

from bayestl._types import Key, Params, Scalar, Selection


def _is_none(x: Any) -> bool:
    return x is None


# ---------------------------------------------------------------- algebra


def zeros_like(tree: Params) -> Params:
    """Zeros in the shapes and dtypes of ``tree``."""
    return jax.tree.map(jnp.zeros_like, tree)


def add(x: Params, y: Params) -> Params:
    """``x + y``, leaf by leaf."""
    return jax.tree.map(jnp.add, x, y)


def sub(x: Params, y: Params) -> Params:
    """``x - y``, leaf by leaf."""
    return jax.tree.map(jnp.subtract, x, y)


def scale(c: Scalar, x: Params) -> Params:
    """``c x``, leaf by leaf."""
    return jax.tree.map(lambda leaf: c * leaf, x)


def total(leaves: Iterable[jax.Array]) -> jax.Array:
    """The sum of scalars, one per leaf; 0 for none."""
    leaves = list(leaves)
    return reduce(jnp.add, leaves) if leaves else jnp.zeros(())


def vdot(x: Params, y: Params) -> jax.Array:
    """Inner product over all leaves, a scalar."""
    return total(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True))


def squared_norm(x: Params) -> jax.Array:
    """Sum of squares. Its gradient at 0 is 0, where that of a squared ``norm`` is NaN."""
    return total(jnp.sum(a * a) for a in jax.tree.leaves(x))


def size(tree: Params) -> int:
    """The number of parameters, D."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def normal_like(key: Key, tree: Params, num: int | None = None) -> Params:
    """Standard normal noise in the shapes and dtypes of ``tree``, with a leading axis ``num`` when that is given."""
    leaves, treedef = jax.tree.flatten(tree)
    lead = () if num is None else (num,)
    keys = jax.random.split(key, max(len(leaves), 1))
    noise = [jax.random.normal(k, lead + x.shape, x.dtype) for k, x in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(treedef, noise)


def at_least_float32(tree: Params) -> Params:
    """Leaves as arrays of at least float32, where parameters, priors and log densities live."""

    def lift(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"an array of shape {x.shape} has dtype {x.dtype}, but parameters and outputs of networks are floating "
                "point; convert it with astype(float)"
            )
        return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x

    return jax.tree.map(lift, tree)


def is_concrete(tree: Any) -> bool:
    """Whether every leaf has a value now: false under jit, vmap or grad, and for shapes without values."""
    return not any(isinstance(x, Tracer | jax.ShapeDtypeStruct) for x in jax.tree.leaves(tree))


def with_arrays(tree: Any) -> Any:
    """The leaves as arrays, where they are; a tree of single numbers, as a list of labels is, as one array."""
    if isinstance(tree, jax.Array | np.ndarray):
        return tree
    is_list = isinstance(tree, list | tuple) and len(tree) > 0
    if (is_list or _is_leaf(tree)) and all(np.ndim(x) == 0 for x in jax.tree.leaves(tree)):
        return np.asarray(tree)
    return jax.tree.map(lambda x: x if isinstance(x, jax.Array) else np.asarray(x), tree)


def _is_leaf(tree: Any) -> bool:
    return jax.tree_util.all_leaves([tree])


def columns_dot(columns: Params, x: Params) -> jax.Array:
    """``C^T x`` for ``columns`` with leaves ``(k, *shape)`` and ``x`` with leaves ``(*shape)``: an array (k,)."""

    def leaf(c: jax.Array, v: jax.Array) -> jax.Array:
        axes = tuple(range(v.ndim))
        return jax.lax.dot_general(c, v, ((tuple(a + 1 for a in axes), axes), ((), ())), precision=Precision.HIGHEST)

    return total(leaf(c, v) for c, v in zip(jax.tree.leaves(columns), jax.tree.leaves(x), strict=True))


def columns_mv(columns: Params, z: jax.Array) -> Params:
    """``C z`` for ``columns`` with leaves ``(k, *shape)`` and ``z`` (..., k): leaves ``(..., *shape)``."""
    return jax.tree.map(lambda c: jnp.tensordot(z.astype(c.dtype), c, axes=1, precision=Precision.HIGHEST), columns)


def columns_gram(x: Params, y: Params) -> jax.Array:
    """``X^T Y`` for columns with leaves ``(k, *shape)`` and ``(l, *shape)``: an array (k, l)."""

    def leaf(a: jax.Array, b: jax.Array) -> jax.Array:
        axes = tuple(range(1, a.ndim))
        return jax.lax.dot_general(a, b, ((axes, axes), ((), ())), precision=Precision.HIGHEST)

    return total(leaf(a, b) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True))


# ---------------------------------------------------------------- paths


def _key_name(key: Key) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            name = str(getattr(key, attribute))
            return name.replace("~", "~0").replace("/", "~1")
    return str(key)


def path_string(path: Sequence[Any]) -> str:
    """The written form of a JAX key path. The trailing ``value`` of an ``nnx.Variable`` is left out."""
    if len(path) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return "/".join(_key_name(key) for key in path)


def paths(tree: Params) -> list[str]:
    """The path of every leaf, in the order of ``jax.tree.leaves``."""
    return [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def matches(pattern: str, path: str) -> bool:
    """Whether ``path`` fits ``pattern``."""
    parts = []
    for segment in pattern.split("/"):
        parts.append(None if segment == "**" else re.escape(segment).replace(r"\*", "[^/]*"))
    regex = "".join(r"(?:[^/]*/)*" if p is None else f"{p}/" for p in parts)
    return re.fullmatch(regex, path + "/") is not None


def select(tree: Params, patterns: str | Sequence[str]) -> Params:
    """The leaves of ``tree`` whose paths fit one of ``patterns``, and ``None`` in place of the others.

    Raises:
        ValueError: a pattern fits no path.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    have = paths(tree)
    for pattern in patterns:
        if not any(matches(pattern, path) for path in have):
            raise ValueError(f"pattern {pattern!r} matches no parameter; the paths are {shown(have)}")
    return select_where(tree, lambda path: any(matches(pattern, path) for pattern in patterns))


def select_where(tree: Params, keep: Callable[[str], bool]) -> Params:
    """The leaves whose path satisfies ``keep``, and ``None`` in place of the others."""
    return jax.tree_util.tree_map_with_path(lambda path, x: x if keep(path_string(path)) else None, tree)


def as_selection(tree: Params, selection: Selection) -> Params:
    """A selection of ``tree``, from patterns or from a tree that already has ``None`` at the leaves left out."""
    if isinstance(selection, str) or (
        isinstance(selection, list | tuple) and selection and all(isinstance(s, str) for s in selection)
    ):
        return select(tree, selection)
    part = like_selection(tree, selection)
    if not jax.tree.leaves(part):
        raise ValueError(f"the selection leaves out every parameter; the paths are {shown(paths(tree))}")
    return part


def like_selection(tree: Params, selection: Params) -> Params:
    """``tree`` with ``None`` where ``selection`` has ``None``."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_none)
    try:
        marks, marks_def = jax.tree.flatten(selection, is_leaf=_is_none)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the selection is no pytree, since the keys of a dict in it cannot be sorted: {error}"
        ) from error
    if treedef != marks_def:
        raise ValueError(
            "the selection is not a part of these parameters: it must be the same tree with None at the leaves left "
            f"out; it has {shown(paths(selection))}, the parameters have {shown(paths(tree))}"
        )
    return jax.tree.unflatten(treedef, [x if m is not None else None for x, m in zip(leaves, marks, strict=True)])


def complement(tree: Params, selection: Params) -> Params:
    """The leaves of ``tree`` that ``selection`` leaves out."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_none)
    marks = jax.tree.leaves(selection, is_leaf=_is_none)
    if len(leaves) != len(marks):
        raise ValueError(
            f"the selection is not a part of these parameters: it has {shown(paths(selection))}, the parameters have "
            f"{shown(paths(tree))}"
        )
    return jax.tree.unflatten(treedef, [None if m is not None else x for x, m in zip(leaves, marks, strict=True)])


def merge(*parts: Params) -> Params:
    """One tree from selections of it that do not overlap."""
    return jax.tree.map(lambda *xs: next((x for x in xs if x is not None), None), *parts, is_leaf=_is_none)


def paths_by_layer(tree: Any) -> dict[str, list[str]]:
    """Layer to the paths of its leaves: those that share all but the last key. A leaf at the root is a layer."""
    layers: dict[str, list[str]] = {}
    for path in paths(tree):
        layers.setdefault(path.rpartition("/")[0] or path, []).append(path)
    return layers


def by_paths(tree: Params) -> dict[str, Any]:
    """Path to leaf."""
    return {path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def restructure(leaves: dict[str, Any], like: Params) -> Params:
    """The tree of ``like`` with the leaves found under its paths, and ``None`` where there is none."""
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves.get(path_string(path)), like)


def shown(names: Sequence[str], most: int = 8) -> str:
    """A list of names for an error message, cut when long."""
    listed = ", ".join(repr(n) for n in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"


def summary(tree: Params, most: int = 100) -> str:
    """A table of the leaves: path, shape, dtype and how many numbers; the total at the end.

    Args:
        tree: parameters, or any pytree of arrays.
        most: rows to show; the others are counted in one line.

    Example:
        >>> print(btl.tree.summary({"body": {"kernel": jnp.zeros((100, 20))}, "bias": jnp.zeros(20)}))
        bias         (20,)      float32     20
        body/kernel  (100, 20)  float32  2,000
        total                            2,020
    """
    leaves = list(by_paths(tree).items())
    rows = [(path or ".", str(jnp.shape(x)), str(jnp.result_type(x)), f"{jnp.size(x):,}") for path, x in leaves[:most]]
    if len(leaves) > most:
        rows.append((f"{len(leaves) - most} more", "", "", f"{sum(jnp.size(x) for _, x in leaves[most:]):,}"))
    rows.append(("total", "", "", f"{sum(jnp.size(x) for _, x in leaves):,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False)), row[3].rjust(widths[3])])
        for row in rows
    )


# ---------------------------------------------------------------- checks


def check_same_structure(name: str, tree: Params, other: str, reference: Params, fix: str) -> None:
    """Raise a ``ValueError`` that names the first path at which two trees differ in presence or shape."""
    have, want = by_paths(tree), by_paths(reference)
    for path, leaf in want.items():
        if path not in have:
            raise ValueError(
                f"{name} and {other} differ: {path!r} of shape {jnp.shape(leaf)} is in {other} and not in {name}, "
                f"which has {shown(list(have))}; {fix}"
            )
        if jnp.shape(have[path]) != jnp.shape(leaf):
            raise ValueError(
                f"{name} and {other} differ at {path!r}: {jnp.shape(have[path])} against {jnp.shape(leaf)}; {fix}"
            )
    for path, leaf in have.items():
        if path not in want:
            raise ValueError(
                f"{name} and {other} differ: {path!r} of shape {jnp.shape(leaf)} is in {name} and not in {other}; {fix}"
            )
    if jax.tree.structure(tree) != jax.tree.structure(reference):
        raise ValueError(
            f"{name} and {other} hold the same paths in different containers: {jax.tree.structure(tree)} against "
            f"{jax.tree.structure(reference)}; {fix}"
        )


def _at(name: str, path: str) -> str:
    return f"{name} at {path!r}" if path else name


def check_floating(name: str, tree: Params) -> None:
    """Raise when ``tree`` is empty, or a leaf is not a real floating-point array."""
    leaves_by_path = by_paths(tree)
    if not leaves_by_path:
        raise ValueError(f"{name} holds no parameters; give a pytree with at least one array")
    for path, leaf in leaves_by_path.items():
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            dtype = jnp.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{_at(name, path)} has dtype {dtype}; parameters must be floating point: keep counters and keys in "
                "the network's state, or convert with astype(float)"
            )


def _count(leaf: Any, condition: Callable[[jax.Array], jax.Array]) -> int:
    """How many values of a leaf satisfy ``condition``; 0 for one without values, such as a tracer."""
    if not is_concrete(leaf):
        return 0
    # A constant may be checked from inside a traced function, where operations on it would be traced as well.
    with jax.ensure_compile_time_eval():
        return int(jnp.sum(condition(jnp.asarray(leaf))))


def check_finite(name: str, tree: Params, fix: str = "") -> None:
    """Raise when a concrete leaf holds a NaN or an infinity."""
    for path, leaf in by_paths(tree).items():
        bad = _count(leaf, lambda x: ~jnp.isfinite(x))
        if bad:
            raise ValueError(
                f"{_at(name, path)} has {bad} non-finite of {jnp.size(leaf)} values{'; ' + fix if fix else ''}"
            )


def check_positive(name: str, tree: Params, fix: str = "") -> None:
    """Raise when a concrete leaf is not positive and finite everywhere."""
    check_finite(name, tree, fix)
    for path, leaf in by_paths(tree).items():
        bad = _count(leaf, lambda x: x <= 0)
        if bad:
            smallest = float(np.min(np.asarray(leaf)))
            raise ValueError(
                f"{_at(name, path)} has {bad} of {jnp.size(leaf)} values <= 0 (smallest {smallest:.3g}); "
                f"{fix or 'variances must be positive'}"
            )
