"""The arrays of a published checkpoint into one of our networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Net
from bayestl.pretrained._layouts import AS_IS, Layout, Table
from bayestl.pretrained._report import LoadReport, Mismatch, cause

T = TypeVar("T", bound="nnx.Module | Net")


class Loaded(NamedTuple, Generic[T]):
    """A network with published weights.

    Attributes:
        net: the network that was given, with the weights in it.
        report: what happened to every array and every parameter.
    """

    net: T
    report: LoadReport


def load(
    net: T,
    arrays: Mapping[str, np.ndarray],
    table: Table,
    *,
    new: Sequence[str] = (),
    rename: Callable[[str], str] | None = None,
    strict: bool = True,
) -> Loaded[T]:
    """A network with the weights of a published checkpoint, and a report of what went where.

    Every parameter and running statistic must be filled by an array of its shape, and every array must have a place,
    with two exceptions: arrays for stages that were cut off are left out, and parameters named as new keep their
    values. Dtypes are those of the network. The network that was given does not change.

    A network need not have values: one made in ``nnx.eval_shape(lambda: resnet50(key))`` draws no random numbers.

    Args:
        net: a :class:`Backbone` or another NNX module, or a :class:`bayestl.Net` made from one.
        arrays: name to array, such as ``read(path).arrays``.
        table: which array is which parameter; one of :mod:`bayestl.pretrained.tables`, or your own.
        new: path patterns of what keeps its values, e.g. ``["head/**"]``.
        rename: name in ``arrays`` -> name in ``table``, where they differ.
        strict: raise when something is missing, unused or of another shape; otherwise the report says so, and the
            parameters concerned keep their values.

    Raises:
        ValueError: parameters without an array, arrays without a place or of another shape (``strict``); two arrays
            for one parameter; a pattern that matches nothing; numbers that are not finite; a network without values
            that keeps some of them.
        TypeError: an array that is not floating point, or arguments of other types.

    Example:
        >>> from flax import nnx
        >>> from bayestl.pretrained.tables import AS_IS, DENSE, Entry
        >>> net = btl.pretrained.Backbone({"head": nnx.Linear(3, 2, rngs=nnx.Rngs(0))})
        >>> arrays = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}
        >>> table = {"fc.weight": Entry("head/kernel", DENSE), "fc.bias": Entry("head/bias", AS_IS)}
        >>> net, report = btl.pretrained.load(net, arrays, table)
        >>> print(report)
        mapped: 2 arrays, 1 of them in another memory layout
        unused: 0: none
        missing: 0: none
        mismatched: 0: none
    """
    check_arguments(load, locals(), skip=("arrays", "new"))
    parts, rebuild = _taken_apart(net)
    leaves = {path: leaf for part in parts for path, leaf in _tree.by_paths(part).items()}
    named = _named(arrays, rename)
    values, report = _matched(named, table, leaves, _kept(leaves, new))
    if strict and not report.complete:
        raise ValueError(
            f"the arrays do not fit the network: {cause(report, named, table)}; strict=False loads what fits\n{report}"
            f"{_names_of(report.missing, table)}"
        )
    without = [path for path, leaf in leaves.items() if path not in values and not _tree.is_concrete(leaf)]
    if without:
        raise ValueError(
            f"net has no values at {_tree.shown(without)}, which keep theirs; make it without nnx.eval_shape"
        )
    filled = leaves | {path: jnp.array(value) for path, value in values.items()}
    return Loaded(rebuild([_tree.restructure(filled, part) for part in parts]), report)


def _names_of(missing: Sequence[str], table: Table) -> str:
    """Under which names the missing arrays were looked for."""
    names = [name for name, entry in table.items() if entry and entry.path in missing]
    return f"\nthe missing arrays would be named {_tree.shown(names, most=4)}" if names else ""


def _taken_apart(net: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Trees of what a checkpoint may hold, and how to make the network again with others in their place."""
    if isinstance(net, Net):
        return [net.params, net.state], lambda parts: dataclasses.replace(net, params=parts[0], state=parts[1])
    if not isinstance(net, nnx.Module):
        raise TypeError(f"net is {type(net).__name__}; give an nnx.Module, such as a backbone, or a Net")
    graph, variables, rest = nnx.split(net, (nnx.Param, nnx.BatchStat), ...)
    return [variables], lambda parts: nnx.merge(graph, parts[0], rest, copy=True)


def _named(arrays: Mapping[str, np.ndarray], rename: Callable[[str], str] | None) -> dict[str, np.ndarray]:
    """The arrays under the names of the table."""
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"arrays is {type(arrays).__name__}; give a mapping of name to array, such as read(path).arrays"
        )
    named: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        other = name if rename is None else rename(name)
        if other in named:
            raise ValueError(f"rename gives {other!r} to two arrays, {name!r} is the second; give different names")
        named[other] = array
    return named


def _kept(leaves: Mapping[str, Any], new: Sequence[str]) -> tuple[str, ...]:
    patterns = [new] if isinstance(new, str) else list(new)
    for pattern in patterns:
        if not any(_tree.matches(pattern, path) for path in leaves):
            raise ValueError(f"new: pattern {pattern!r} matches nothing; the paths are {_tree.shown(list(leaves))}")
    return tuple(path for path in leaves if any(_tree.matches(pattern, path) for pattern in patterns))


def _matched(
    arrays: Mapping[str, np.ndarray], table: Table, leaves: Mapping[str, Any], new: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """Path to value, and the report."""
    values: dict[str, np.ndarray] = {}
    mapped: dict[str, str] = {}
    mismatched: list[Mismatch] = []
    fates = _fates(arrays, table, leaves, new)
    for name in fates["wanted"]:
        path, layout = table[name] or ("", AS_IS)
        if path in values:
            raise ValueError(f"arrays holds {path!r} under two names, {name!r} is the second; drop one of them")
        value = _laid_out(arrays[name], layout, leaves[path].shape)
        if value is None:
            mismatched.append(Mismatch(name, path, np.shape(arrays[name]), leaves[path].shape))
        else:
            values[path], mapped[name] = _checked(name, value, leaves[path].dtype), path
    settled = {*values, *new, *(mismatch.path for mismatch in mismatched)}
    return values, LoadReport(
        mapped,
        {name: entry.layout.name for name in mapped if (entry := table[name]) and entry.layout.name},
        new,
        fates["left out"],
        fates["ignored"],
        fates["unused"],
        tuple(path for path in leaves if path not in settled),
        tuple(mismatched),
    )


def _fates(
    arrays: Mapping[str, np.ndarray], table: Table, leaves: Mapping[str, Any], new: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Which names are wanted, left out, ignored and unused."""
    stages = {path.split("/")[0] for path in leaves}

    def fate(name: str) -> str:
        entry = table.get(name)
        if entry is None:
            return "ignored" if name in table else "unused"
        if entry.path in new or entry.path.split("/")[0] not in stages:
            return "left out"
        return "wanted" if entry.path in leaves else "unused"

    fates = {name: fate(name) for name in arrays}
    kinds = ("wanted", "left out", "ignored", "unused")
    return {kind: tuple(name for name, have in fates.items() if have == kind) for kind in kinds}


def _laid_out(array: np.ndarray, layout: Layout, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array in our layout; None when it cannot have that shape."""
    try:
        value = layout.apply(np.asarray(array))
    except (ValueError, IndexError):
        return None
    return value if value.shape == tuple(shape) else None


def _checked(name: str, value: np.ndarray, dtype: Any) -> np.ndarray:
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"arrays[{name!r}] has dtype {value.dtype}; weights must be floating point")
    with np.errstate(over="ignore"):
        value = np.asarray(value, dtype)
    if not np.isfinite(value.astype(np.float32, copy=False)).all():
        raise ValueError(f"arrays[{name!r}] has values that are not finite; load the weights again")
    return value
