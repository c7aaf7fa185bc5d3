"""A Gaussian as the header and the arrays of a file, and back, assembled from the answers of its structures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from bayestl import _tree
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._header import Header, Structure, covered_by
from bayestl.gaussians._storable import Parameter, Shape, Shapes, Storable, Stored
from bayestl.gaussians._target import Target

_MOST_LETTERS = 1 << 26


class Expected(NamedTuple):
    """What an array of a file must look like.

    Attributes:
        shape: the shapes that are allowed.
        dtype: its dtype, or None for any floating-point one.
    """

    shape: Shape
    dtype: str | None


def describe(gaussian: Gaussian) -> tuple[Structure, tuple[Parameter, ...]]:
    """The covariance structure of a Gaussian and its parameters."""
    if not isinstance(gaussian, Gaussian):
        raise TypeError(f"a {type(gaussian).__name__} cannot be saved; give a Gaussian made by bayestl.gaussians")
    if not _tree.is_concrete(gaussian):
        raise ValueError("the Gaussian holds tracers; save it outside jit, vmap and grad")
    leaves = jax.tree_util.tree_leaves_with_path(gaussian.mean)
    parameters = tuple(Parameter(tuple(path), leaf.shape, str(leaf.dtype)) for path, leaf in leaves)
    return _structure(gaussian, {p.path: i for i, p in enumerate(parameters)}), parameters


def _structure(gaussian: Gaussian, positions: dict[str, int]) -> Structure:
    stored = gaussian.stored()
    if stored.parts:
        return Structure(gaussian.kind, (), stored.settings, tuple(_structure(x, positions) for x in stored.parts))
    return Structure(gaussian.kind, tuple(positions[path] for path in _tree.paths(gaussian.mean)), stored.settings)


# ---------------------------------------------------------------- names of arrays


def _inner(structure: Structure, place: str) -> list[str]:
    """The places of the parts of a structure."""
    if Storable.kinds[structure.kind].num_parts is None:
        return [f"{place}/{i}" for i in range(len(structure.parts))]
    return [f"{place}/base"] if len(structure.parts) == 1 else [f"{place}/base{i}" for i in range(len(structure.parts))]


def _prefix(structure: Structure, field: str, place: str) -> str:
    """What comes before the path: structures with parts may lie within each other over the same parameters."""
    return field + "_of_base" * place.count("/base") if structure.parts else field


def _walk(structure: Structure, place: str = "") -> Iterator[tuple[Structure, str]]:
    """A structure and all inside it, each with its place, which ends the names of its arrays."""
    yield structure, place
    for part, inner in zip(structure.parts, _inner(structure, place), strict=True):
        yield from _walk(part, inner)


def expected(header: Header) -> dict[str, Expected]:
    """Name to what is expected of it, for every array of a file.

    Raises:
        ValueError: settings of a structure that are not right, or names that take too much memory together.
    """
    result: dict[str, Expected] = {}
    letters = 0  # structures on top of each other repeat the paths of all parameters, and a file may nest hundreds
    dtypes = {p.path: p.dtype for p in header.parameters}
    for structure, place in _walk(header.structure):
        shapes = _shapes(structure, header)
        for field, by_path in shapes.trees.items():
            for path, shape in by_path.items():
                dtype = dtypes[path] if field == "mean" else None
                letters += len(path) + len(place)
                if letters > _MOST_LETTERS:
                    raise ValueError(f"the names of its arrays take more than {_MOST_LETTERS:,} letters together")
                result[f"{_prefix(structure, field, place)}/{path}"] = Expected(shape, dtype)
        result |= {f"{field}{place}": Expected(shape, None) for field, shape in shapes.arrays.items()}
    return result


def _shapes(structure: Structure, header: Header) -> Shapes:
    parameters = [header.parameters[i] for i in sorted(covered_by(structure))]
    return Storable.kinds[structure.kind].stored_shapes(structure.settings, parameters)


def tensors_of(gaussian: Gaussian, header: Header) -> dict[str, np.ndarray]:
    """Name to array.

    Raises:
        ValueError: arrays whose shapes do not fit together, as those of a Gaussian made by vmap.
    """
    # safetensors writes memory as it lies, so it must lie in row-major order.
    tensors = {name: np.asarray(x, order="C") for name, x in _named(gaussian, header.structure, "")}
    for name, (shape, _) in expected(header).items():
        if not shape.admits(tensors[name].shape):
            raise ValueError(
                f"{name!r} of the Gaussian has shape {tensors[name].shape}, and its mean asks for {shape}; save the "
                "Gaussians of a vmap one by one"
            )
    return tensors


def _named(gaussian: Gaussian, structure: Structure, place: str) -> Iterator[tuple[str, Any]]:
    stored = gaussian.stored()
    for field, tree in stored.trees.items():
        for path, leaf in _tree.by_paths(tree).items():
            yield f"{_prefix(structure, field, place)}/{path}", leaf
    for field, array in stored.arrays.items():
        yield f"{field}{place}", array
    for part, inside, inner in zip(stored.parts, structure.parts, _inner(structure, place), strict=True):
        yield from _named(part, inside, inner)


# ---------------------------------------------------------------- back again


def rebuild(header: Header, tensors: Mapping[str, jax.Array], target: Target) -> Gaussian:
    """The Gaussian from its arrays, over the tree of ``target``.

    Raises:
        ValueError: values that the constructors refuse.
    """
    positions = {p.path: i for i, p in enumerate(header.parameters)}

    def build(structure: Structure, place: str) -> Any:
        shapes = _shapes(structure, header)
        trees = {
            field: target.place(
                {positions[path]: tensors[f"{_prefix(structure, field, place)}/{path}"] for path in by_path}
            )
            for field, by_path in shapes.trees.items()
        }
        arrays = {field: tensors[f"{field}{place}"] for field in shapes.arrays}
        inside = zip(structure.parts, _inner(structure, place), strict=True)
        parts = tuple(build(part, inner) for part, inner in inside)
        gaussian = Storable.kinds[structure.kind].from_stored(Stored(trees, arrays, structure.settings, parts))
        gaussian.check_values()
        return gaussian

    return build(header.structure, "")


def check_values(gaussian: Gaussian) -> None:
    """Raise a ``ValueError`` for values, in any part, that the constructors refuse."""
    for part in gaussian.stored().parts:
        check_values(part)
    gaussian.check_values()
