"""The header of a saved Gaussian: what is in the file, checked field by field, since files come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from bayestl import _tree

FORMAT = "bayestl.gaussian"
VERSION = 1

KINDS = ("diagonal", "low_rank", "dense", "kronecker", "blocks", "low_rank_update")

_FIELDS = {"format", "version", "package_version", "source_task", "convention", "notes"}
_FIELDS |= {"structure", "parameters", "containers"}


class Parameter(NamedTuple):
    """One leaf of the mean.

    Attributes:
        keys: the JAX key entries on the way to it.
        shape: its shape.
        dtype: the dtype of its mean, ``"float32"`` or ``"float64"``.
    """

    keys: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def path(self) -> str:
        """The path as it is written in patterns and messages."""
        return _tree.path_string(self.keys)


class MatrixOf(NamedTuple):
    """Which parameters of a ``"kronecker"`` structure are its matrix, and how.

    Attributes:
        weights: position in ``Header.parameters``.
        bias: likewise, or None.
        steps: from the weights to the matrix, as in :class:`~bayestl.gaussians.Rearrangement`.
    """

    weights: int
    bias: int | None
    steps: tuple[tuple[str, tuple[int, ...]], ...]


class Structure(NamedTuple):
    """A covariance structure.

    Attributes:
        kind: one of ``KINDS``.
        parameters: which parameters it covers by itself, as positions in ``Header.parameters``.
        rank: the number of columns of a low-rank part, else None.
        blocks: the parts of ``"blocks"``, the base alone of ``"low_rank_update"``, else empty.
        matrix: of ``"kronecker"``, else None.
    """

    kind: str
    parameters: tuple[int, ...] = ()
    rank: int | None = None
    blocks: tuple[Structure, ...] = ()
    matrix: MatrixOf | None = None


class Header(NamedTuple):
    """What a file says about the Gaussian that it holds.

    Attributes:
        structure: the covariance structure, nested for blocks.
        parameters: path, shape and dtype of every parameter.
        containers: dicts, lists, tuples and None around the parameters as nested JSON, or ``"other"`` when there were
            further kinds of container, which only ``load(..., like=...)`` can give back.
        convention: what the numbers mean: factors and floors already inside the covariance.
        source_task: where the Gaussian was learned.
        notes: any JSON value.
        package_version: the version of bayestl that wrote the file.
        format_version: the version of the file format.
    """

    structure: Structure
    parameters: tuple[Parameter, ...]
    containers: Any
    convention: str
    source_task: str
    notes: Any
    package_version: str
    format_version: int = VERSION


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
        ValueError: anything that :func:`to_json` would not have written.
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
    names = [p.path for p in parameters]
    _require(len(set(names)) == len(names), "two parameters have one path")
    structure = _structure_from_json(fields["structure"])
    covered = sorted(covered_by(structure))
    _require(covered == list(range(len(parameters))), "structure does not cover every parameter exactly once")
    texts = (fields["convention"], fields["source_task"], fields["notes"], fields["package_version"])
    return Header(structure, parameters, fields["containers"], *texts, version)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _no_constants(name: str) -> Any:
    raise ValueError(f"the number {name} has no place in it")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len({key for key, _ in pairs}) == len(pairs), "a field is given twice")
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
    if structure.kind == "blocks":
        return {"kind": "blocks", "blocks": [_structure_to_json(block) for block in structure.blocks]}
    if structure.kind == "low_rank_update":
        return {"kind": structure.kind, "rank": structure.rank, "base": _structure_to_json(structure.blocks[0])}
    entry: dict[str, Any] = {"kind": structure.kind, "parameters": list(structure.parameters)}
    if structure.matrix is not None:
        entry["matrix"] = {**structure.matrix._asdict(), "steps": [list(step) for step in structure.matrix.steps]}
    return entry if structure.rank is None else {**entry, "rank": structure.rank}


def _structure_from_json(entry: Any) -> Structure:
    _require(isinstance(entry, dict) and entry.get("kind") in KINDS, f"{entry!r} is not a structure")
    kind, fields = entry["kind"], set(entry)
    if kind == "blocks":
        blocks: Any = entry.get("blocks")
        _require(fields == {"kind", "blocks"} and isinstance(blocks, list) and len(blocks) > 0, "blocks holds no list")
        return Structure(kind, blocks=tuple(_structure_from_json(block) for block in blocks))
    rank: Any = entry.get("rank")
    if kind == "low_rank_update":
        _require(fields == {"kind", "rank", "base"}, f"structure {kind!r} has the fields {sorted(fields)}")
        _require(_is_count(rank) and rank > 0, f"rank {rank!r} is not a positive integer")
        return Structure(kind, rank=rank, blocks=(_structure_from_json(entry["base"]),))
    wanted = {"kind", "parameters"} | {"low_rank": {"rank"}, "kronecker": {"matrix"}}.get(kind, set())
    _require(fields == wanted, f"structure {kind!r} has the fields {sorted(fields)}, not {sorted(wanted)}")
    _require(kind != "low_rank" or (_is_count(rank) and rank > 0), f"rank {rank!r} is not a positive integer")
    found = entry["parameters"]
    _require(isinstance(found, list) and len(found) > 0 and all(map(_is_count, found)), "a block holds no parameters")
    _require(found == sorted(found), "the parameters of a block are out of order")
    return Structure(
        kind, tuple(found), rank, matrix=_matrix_from_json(entry["matrix"], found) if kind == "kronecker" else None
    )


def _matrix_from_json(entry: Any, parameters: Sequence[int]) -> MatrixOf:
    _require(isinstance(entry, dict) and set(entry) == {"weights", "bias", "steps"}, f"{entry!r} is not a matrix")
    weights, bias, steps = entry["weights"], entry["bias"], entry["steps"]
    used = [weights] if bias is None else [weights, bias]
    _require(all(map(_is_count, used)) and sorted(used) == list(parameters), "a matrix is of other parameters")
    _require(isinstance(steps, list) and all(map(_is_step, steps)), f"{steps!r} are not the steps to a matrix")
    return MatrixOf(weights, bias, tuple((name, tuple(argument)) for name, argument in steps))


def _is_step(step: Any) -> bool:
    return (
        isinstance(step, list)
        and len(step) == 2
        and step[0] in ("transpose", "reshape")
        and isinstance(step[1], list)
        and all(map(_is_count, step[1]))
    )


def covered_by(structure: Structure) -> Sequence[int]:
    """The parameters of a structure, those of the structures inside included, as positions."""
    return [*structure.parameters, *(i for block in structure.blocks for i in covered_by(block))]
