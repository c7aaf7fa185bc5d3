"""Which target parameter is which source parameter."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.sources._match_rows import Names, check_rows, matched_rows


class Match(NamedTuple):
    """Where a target's start comes from.

    Attributes:
        params: the target's tree: source weights where they were reused, the target's own initialisation where new.
        reused: paths taken from the source.
        new: paths of the target that keep their initialisation.
        unused: paths of the source that the target does not take.
        rows: of a table whose rows were matched by name: its path to (V,) booleans, true for rows of the source; the
            others keep the target's initialisation.
    """

    params: Params
    reused: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    rows: Mapping[str, np.ndarray] = types.MappingProxyType({})

    def __str__(self) -> str:
        have = _tree.by_paths(self.params)

        def count(paths: tuple[str, ...]) -> str:
            return f"{sum(jnp.size(have[p]) for p in paths):,} parameters"

        return "\n".join(
            [
                f"reused: {len(self.reused)} arrays, {count(self.reused)}: {_tree.shown(self.reused)}",
                f"new:    {len(self.new)} arrays, {count(self.new)}: {_tree.shown(self.new)}",
                f"unused: {len(self.unused)} arrays of the source: {_tree.shown(self.unused)}",
                *(f"rows:   {int(r.sum()):,} of {len(r):,} rows of {p!r}" for p, r in self.rows.items()),
            ]
        )


def match(
    source: Params,
    target: Params,
    *,
    new: Sequence[str] = (),
    rename: Callable[[str], str] | None = None,
    rows: Mapping[str, Names] | None = None,
    verbose: bool = True,
) -> Match:
    """Put the source's weights into the target's tree, and say what was reused, new and unused.

    Every target parameter must be found in the source under the same path with the same shape, or be named as new. A
    new head keeps its random initialisation: a start is not the mean of a prior. Dtypes are the target's.

    Args:
        source: the source's weights.
        target: the target's freshly initialised parameters.
        new: path patterns of parameters that the source does not have, e.g. ``["head/**"]``.
        rename: source path -> target path, where names differ.
        rows: tables whose rows have names, such as word vectors: path in the target to a pair of vocabularies, that of
            the source and that of the target, each a list with one name for every row. A row takes the source's row of
            the same name, and is new where there is none.
        verbose: print the report.

    Raises:
        ValueError: a target parameter that is neither in the source nor named as new, a shape that differs, a pattern
            that matches nothing, two source parameters renamed to one path; tables that differ from their names.
        TypeError: parameters, of the target or reused from the source, that are not floating point.

    Example:
        >>> source = {"body": jnp.ones(3), "head": jnp.ones(10)}
        >>> match = btl.sources.match(source, {"body": jnp.zeros(3), "head": jnp.zeros(2)}, new=["head"])
        reused: 1 arrays, 3 parameters: 'body'
        new:    1 arrays, 2 parameters: 'head'
        unused: 1 arrays of the source: 'head'
    """
    check_arguments(match, locals())
    named: dict[str, str] = {}
    for path in _tree.paths(source):
        name = path if rename is None else rename(path)
        if name in named:
            raise ValueError(f"rename gives {name!r} to both {named[name]!r} and {path!r}; names must stay distinct")
        named[name] = path
    _tree.check_floating("target", target)
    weights = _tree.by_paths(source)
    fresh = _tree.select(target, list(new)) if new else {}
    new_paths = tuple(_tree.paths(fresh))
    check_rows(rows or {}, _tree.by_paths(target), new_paths)
    reused, shared_rows = {}, {}
    for path, leaf in _tree.by_paths(target).items():
        if path in new_paths:
            continue
        if path not in named:
            raise ValueError(
                f"target parameter {path!r} of shape {jnp.shape(leaf)} is not in the source, which has "
                f"{_tree.shown(list(named))}; name it in new=[...] if it is new, or map names with rename"
            )
        weight = weights[named[path]]
        if path in (rows or {}):
            weight, shared_rows[path] = matched_rows(path, (rows or {})[path], weight, leaf)
        if jnp.shape(weight) != jnp.shape(leaf):
            raise ValueError(
                f"source and target differ at {path!r}: {jnp.shape(weight)} against {jnp.shape(leaf)}; name it in "
                "new=[...] if the target's is a new one"
            )
        if not jnp.issubdtype(jnp.result_type(weight), jnp.floating):
            raise TypeError(
                f"source parameter {named[path]!r} has dtype {jnp.result_type(weight)}; weights must be floating "
                "point: undo their quantisation, or convert with astype(float)"
            )
        reused[path] = jnp.asarray(weight).astype(jnp.result_type(leaf))
    fresh_leaves = {path: leaf for path, leaf in _tree.by_paths(target).items() if path in new_paths}
    unused = tuple(original for name, original in named.items() if name not in reused)
    params = _tree.restructure({**reused, **fresh_leaves}, target)
    result = Match(params, tuple(reused), new_paths, unused, shared_rows)
    if verbose:
        print(result)
    return result
