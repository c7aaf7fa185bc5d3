"""Weights in several files, with an index that says which array lies where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from bayestl._limits import MOST_JSON
from bayestl.pretrained._weights import Ask, FileContents


def read(
    path: Path, ask: Ask, beside: Callable[[str], Path], read_file: Callable[[Path, Ask], FileContents]
) -> FileContents:  # fmt: skip
    """The arrays of all files that an index lists.

    Args:
        path: the index, such as ``model.safetensors.index.json``.
        ask: what is wanted.
        beside: the path of the file with this name in the folder of the index, downloaded where it has to be.
        read_file: reads one of them.
    """
    metadata, where = _index(path)
    shards = {}
    for name in sorted(set(where.values())):
        shard = beside(name)
        try:
            shards[name] = read_file(shard, Ask("", ask.max_bytes))
        except FileNotFoundError as error:
            raise ValueError(f"it lists the file {name!r}, which is not beside it") from error
        except ValueError as error:
            raise ValueError(f"its part {name!r}: {error}") from error
    missing = [name for name, shard in where.items() if name not in shards[shard].arrays]
    if missing:
        raise ValueError(f"its files lack {len(missing)} of the {len(where)} arrays it lists, such as {missing[:3]}")
    arrays = {name: shards[shard].arrays[name] for name, shard in where.items()}
    names = ask.choose(dict.fromkeys(arrays, 0), 0)
    kind = next(iter(shards.values())).format
    return FileContents(
        {short: arrays[name] for name, short in names.items()}, kind, {**metadata, "files": sorted(shards)}
    )


def _index(path: Path) -> tuple[dict, dict[str, str]]:
    """Metadata of an index, and which array lies in which file."""
    if path.stat().st_size > MOST_JSON:
        raise ValueError(
            f"it begins like JSON, but is too large for an index of weights: more than {MOST_JSON:,} bytes"
        )
    try:
        index = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it begins like a JSON index of weights, but is not valid: {str(error)[:200]}") from error
    where = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise ValueError('it is JSON, but no index of weights, which says {"weight_map": {array: file}}')
    for name in where.values():
        if PurePosixPath(name).name != name or "\\" in name or name in ("", ".", ".."):
            raise ValueError(
                f"it lists the file {name[:200]!r}, which is not a plain name; parts lie beside their index"
            )
    metadata = index.get("metadata")
    return metadata if isinstance(metadata, dict) else {}, where
