"""Files of format version 1: their structures converted to those of version 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def upgraded(structure: Any, paths: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """The JSON of a structure in version 2, and the names of arrays that had other names in version 1.

    In version 1, ``"low_rank"`` was on top of a diagonal only, and there was a ``"low_rank_update"`` of anything.
    Missing or wrong fields are passed on unchanged, for the reader of version 2 to refuse.

    Args:
        structure: the header's.
        paths: those of all parameters.
    """
    names: dict[str, str] = {}
    return _upgraded(structure, paths, 0, names)[0], names


def _upgraded(entry: Any, paths: Sequence[str], depth: int, names: dict[str, str]) -> tuple[Any, list[Any]]:
    """The structure in version 2, and the positions of its parameters; it is below ``depth`` low-rank changes."""
    if not isinstance(entry, dict):
        return entry, []
    kind = entry.get("kind")
    rest = {name: value for name, value in entry.items() if name not in ("kind", "rank", "blocks", "base", "matrix")}
    settings: dict[str, Any] = {"rank": entry["rank"]} if "rank" in entry else {}
    suffix = "_of_base" * depth
    if kind == "blocks":
        parts = entry.get("blocks")
        each = [_upgraded(part, paths, depth, names) for part in parts] if isinstance(parts, list) else []
        covered = [i for _, inside in each for i in inside]
        return {**rest, "kind": "blocks", "settings": settings, "parts": [part for part, _ in each]}, covered
    if kind == "low_rank_update":
        base, covered = _upgraded(entry.get("base"), paths, depth + 1, names)
        names |= {f"basis{suffix}/{path}": f"update{suffix}/{path}" for path in _at(covered, paths)}
        return {**rest, "kind": "low_rank", "settings": settings, "parts": [base]}, covered
    own = entry.get("parameters")
    covered = own if isinstance(own, list) else []
    if kind == "low_rank":
        if depth:
            names |= {f"basis{suffix}/{path}": f"basis/{path}" for path in _at(covered, paths)}
        base = {**rest, "kind": "diagonal", "settings": {}}
        return {"kind": "low_rank", "settings": settings, "parts": [base]}, covered
    if kind == "dense":
        settings["order"] = _at(covered, paths)
    matrix = entry.get("matrix")
    if isinstance(matrix, dict):
        where = {name: _at([matrix[name]], paths) for name in ("weights", "bias") if matrix.get(name) is not None}
        settings |= {**matrix, **{name: path[0] if path else None for name, path in where.items()}}
    return {**rest, "kind": kind, "settings": settings}, covered


def _at(positions: Sequence[Any], paths: Sequence[str]) -> list[str]:
    """The paths at these positions; invalid positions are skipped."""
    return [paths[i] for i in positions if type(i) is int and 0 <= i < len(paths)]
