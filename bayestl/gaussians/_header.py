"""The header of a saved Gaussian, checked field by field, since files may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from bayestl.gaussians._header_1 import upgraded
from bayestl.gaussians._storable import Parameter, Storable

FORMAT = "bayestl.gaussian"
VERSION = 2

_FIELDS = {"format", "version", "package_version", "source_task", "convention", "notes"}
_FIELDS |= {"structure", "parameters", "containers"}


class Structure(NamedTuple):
    """A covariance structure.

    Attributes:
        kind: its name: ``"diagonal"``, ``"low_rank"``, ``"dense"``, ``"kronecker"``, ``"blocks"``, or that of a
            structure defined elsewhere.
        parameters: which parameters it covers itself, as positions in ``Header.parameters``; none if it has parts.
        settings: whatever else determines the shapes of its arrays, such as ``"rank"`` of a ``"low_rank"`` structure.
        parts: the structures inside: all blocks of ``"blocks"``, the base of ``"low_rank"``.
    """

    kind: str
    parameters: tuple[int, ...] = ()
    settings: Mapping[str, Any] = {}
    parts: tuple[Structure, ...] = ()


class Header(NamedTuple):
    """What a file says about the Gaussian in it.

    Attributes:
        structure: the covariance structure, nested for blocks.
        parameters: path, shape and dtype of every parameter.
        containers: dicts, lists, tuples and None around the parameters as nested JSON, or ``"other"`` if there were
            further kinds of container, which only ``load(..., like=...)`` can restore.
        convention: what the numbers mean: factors and floors that the covariance already includes.
        source_task: where the Gaussian was learned.
        notes: any JSON value.
        package_version: the version of bayestl that wrote the file.
        format_version: the version of the file format.
        names: from an array's name in this version to its name in a file of an older version, where they differ.
    """

    structure: Structure
    parameters: tuple[Parameter, ...]
    containers: Any
    convention: str
    source_task: str
    notes: Any
    package_version: str
    format_version: int = VERSION
    names: Mapping[str, str] = {}


def to_json(header: Header) -> str:
    """The header as text."""
    fields = {
        "format": FORMAT,
        "version": header.format_version,
        "package_version": header.package_version,
        "source_task": header.source_task,
        "convention": header.convention,
        "notes": header.notes,
        "structure": _structure_to_json(header.structure),
        "parameters": [
            {"path": [_key_to_json(k) for k in p.keys], "shape": list(p.shape), "dtype": p.dtype}
            for p in header.parameters
        ],
        "containers": header.containers,
    }
    return json.dumps(fields, allow_nan=False)


def from_json(text: str) -> Header:
    """The header from text.

    Raises:
        ValueError: text that :func:`to_json` cannot have written.
    """
    fields = json.loads(text, parse_constant=_no_constants, object_pairs_hook=_no_duplicates)
    _require(isinstance(fields, dict) and fields.get("format") == FORMAT, f"its format is not {FORMAT!r}")
    version: Any = fields.get("version")
    _require(_is_count(version) and version >= 1, f"version {version!r} is not a positive integer")
    _require(
        version <= VERSION, f"it has format version {version}, and this bayestl reads up to {VERSION}: upgrade bayestl"
    )
    _require(set(fields) == _FIELDS, f"its fields are {sorted(fields)}, not {sorted(_FIELDS)}")
    for name in ("package_version", "source_task", "convention"):
        _require(isinstance(fields[name], str), f"{name} is not text")
    _require(isinstance(fields["parameters"], list) and fields["parameters"], "parameters is not a list of some")
    parameters = tuple(_parameter_from_json(p) for p in fields["parameters"])
    paths = [p.path for p in parameters]
    _require(len(set(paths)) == len(paths), "two parameters have one path")
    names: dict[str, str] = {}
    if version == 1:
        fields["structure"], names = upgraded(fields["structure"], paths)
    structure = _structure_from_json(fields["structure"])
    covered = sorted(covered_by(structure))
    _require(covered == list(range(len(parameters))), "structure does not cover every parameter exactly once")
    texts = (fields["convention"], fields["source_task"], fields["notes"], fields["package_version"])
    return Header(structure, parameters, fields["containers"], *texts, version, names)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _no_constants(name: str) -> Any:
    raise ValueError(f"the number {name} is not allowed in it")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len({key for key, _ in pairs}) == len(pairs), "a field occurs twice")
    return dict(pairs)


# ---------------------------------------------------------------- keys


def _key_to_json(key: Any) -> list[Any]:
    if isinstance(key, DictKey) and type(key.key) in (str, int):
        return ["dict", key.key]
    if isinstance(key, SequenceKey):
        return ["index", key.idx]
    if isinstance(key, GetAttrKey):
        return ["attribute", key.name]
    if isinstance(key, FlattenedIndexKey):
        return ["flat_index", key.key]
    raise TypeError(f"the path entry {key!r} cannot be written to a file: keys must be text or integers")


def _key_from_json(entry: Any) -> Any:
    _require(isinstance(entry, list) and len(entry) == 2, f"{entry!r} is not an entry of a path")
    kind, value = entry
    if kind == "dict" and type(value) in (str, int):
        return DictKey(value)
    if kind == "index" and _is_count(value):
        return SequenceKey(value)
    if kind == "attribute" and isinstance(value, str):
        return GetAttrKey(value)
    if kind == "flat_index" and _is_count(value):
        return FlattenedIndexKey(value)
    raise ValueError(f"{entry!r} is not an entry of a path")


# ---------------------------------------------------------------- parameters and structures


def _parameter_from_json(entry: Any) -> Parameter:
    _require(isinstance(entry, dict) and set(entry) == {"path", "shape", "dtype"}, f"{entry!r} is not a parameter")
    _require(isinstance(entry["path"], list), "the path of a parameter is not a list")
    shape = entry["shape"]
    _require(isinstance(shape, list) and all(_is_count(n) for n in shape), f"{shape!r} is not a shape")
    _require(entry["dtype"] in ("float32", "float64"), f"dtype {entry['dtype']!r} is not float32 or float64")
    return Parameter(tuple(_key_from_json(k) for k in entry["path"]), tuple(shape), entry["dtype"])


def _structure_to_json(structure: Structure) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": structure.kind, "settings": dict(structure.settings)}
    if structure.parts:
        return {**entry, "parts": [_structure_to_json(part) for part in structure.parts]}
    return {**entry, "parameters": list(structure.parameters)}


def _structure_from_json(entry: Any) -> Structure:
    _require(isinstance(entry, dict), f"{entry!r} is not a structure")
    kind, settings = entry.get("kind"), entry.get("settings")
    known = isinstance(kind, str) and kind in Storable.kinds
    _require(known, f"{kind!r} is not a structure: those known are {sorted(Storable.kinds)}")
    _require(isinstance(settings, dict), f"the settings of structure {kind!r} are {settings!r}")
    num_parts = Storable.kinds[kind].num_parts
    holds = "parameters" if num_parts == 0 else "parts"
    expected = {"kind", "settings", holds}
    _require(set(entry) == expected, f"structure {kind!r} has the fields {sorted(entry)}, not {sorted(expected)}")
    inside = entry[holds]
    _require(isinstance(inside, list) and len(inside) > 0, f"structure {kind!r} holds no {holds}")
    if num_parts == 0:
        _require(all(map(_is_count, inside)), f"structure {kind!r} holds no parameters")
        _require(inside == sorted(inside), "the parameters of a block are out of order")
        return Structure(kind, tuple(inside), settings)
    _require(num_parts in (None, len(inside)), f"structure {kind!r} has {len(inside)} parts, not {num_parts}")
    return Structure(kind, (), settings, tuple(map(_structure_from_json, inside)))


def covered_by(structure: Structure) -> Sequence[int]:
    """The parameters of a structure, those of the structures inside included, as positions."""
    return [*structure.parameters, *(i for part in structure.parts for i in covered_by(part))]
