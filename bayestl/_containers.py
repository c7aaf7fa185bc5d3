"""Dicts, lists, tuples and None around the leaves of a pytree, as JSON and back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

OTHER = "other"


def to_json(treedef: Any) -> Any:
    """A leaf becomes its position, None stays, a container becomes ``{"dict": [[key, ...], ...]}`` and the like.

    A tree with any other kind of container, which no file could give back, becomes ``"other"``.
    """
    try:
        return _node_to_json(treedef, count())
    except NotImplementedError:
        return OTHER


def _node_to_json(treedef: Any, positions: Iterator[int]) -> Any:
    node = treedef.node_data()
    if node is None:
        return next(positions)
    kind, data = node
    if kind is type(None):
        return None
    parts = [_node_to_json(child, positions) for child in treedef.children()]
    if kind is dict and all(type(key) in (str, int) for key in data):
        return {"dict": [[key, part] for key, part in zip(data, parts, strict=True)]}
    if kind in (list, tuple):
        return {kind.__name__: parts}
    raise NotImplementedError(kind)


def from_json(entry: Any) -> Any:
    """The tree, with positions for leaves.

    Raises:
        ValueError: anything that :func:`to_json` would not have written.
    """
    if entry is None or (type(entry) is int and entry >= 0):
        return entry
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ValueError(f"{entry!r} is not a container")
    ((kind, parts),) = entry.items()
    if kind not in ("dict", "list", "tuple") or not isinstance(parts, list):
        raise ValueError(f"{entry!r} is not a container")
    if kind != "dict":
        return [from_json(part) for part in parts] if kind == "list" else tuple(map(from_json, parts))
    if not all(isinstance(p, list) and len(p) == 2 and type(p[0]) in (str, int) for p in parts):
        raise ValueError(f"{parts!r} are not the entries of a dict")
    entries = {key: from_json(part) for key, part in parts}
    if len(entries) != len(parts):
        raise ValueError("a key of a dict is given twice")
    return entries
