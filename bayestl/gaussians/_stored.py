"""Which arrays each covariance structure keeps in a file, and the structure from those arrays again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._rearrangement import Rearrangement
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._by_path import Blocks
from bayestl.gaussians._dense import Dense, reordered
from bayestl.gaussians._diagonal import Diagonal
from bayestl.gaussians._header import Header, MatrixOf, Parameter, Structure, covered_by
from bayestl.gaussians._kronecker import Kronecker
from bayestl.gaussians._low_rank import LowRank
from bayestl.gaussians._low_rank_update import LowRankUpdate
from bayestl.gaussians._matrix_layout import MatrixLayout
from bayestl.gaussians._target import Target

_Shapes = tuple[tuple[int, ...], ...]


class _Layout(NamedTuple):
    """The fields of a structure: trees over its parameters, and arrays for all of them together."""

    make: Any
    trees: tuple[str, ...]
    arrays: tuple[str, ...] = ()


_LAYOUTS = {
    "diagonal": _Layout(Diagonal, ("mean", "diagonal")),
    "low_rank": _Layout(LowRank, ("mean", "diagonal", "basis"), ("eigenvalues",)),
    "dense": _Layout(Dense, ("mean",), ("cholesky",)),
    "kronecker": _Layout(Kronecker, ("mean",), ("scale", "inputs", "outputs", "spectrum")),
}


def _kind(gaussian: Any) -> str:
    for kind, layout in _LAYOUTS.items():
        if isinstance(gaussian, layout.make):
            return kind
    raise TypeError(f"a {type(gaussian).__name__} cannot be saved; a Gaussian made by bayestl.gaussians is wanted")


def describe(gaussian: Gaussian) -> tuple[Structure, tuple[Parameter, ...]]:
    """The covariance structure of a Gaussian and its parameters."""
    if not isinstance(gaussian, Blocks | LowRankUpdate):
        _kind(gaussian)
    if not _tree.is_concrete(gaussian):
        raise ValueError("the Gaussian holds tracers; save it outside jit, vmap and grad")
    found = jax.tree_util.tree_leaves_with_path(gaussian.mean)
    parameters = tuple(Parameter(tuple(path), leaf.shape, str(leaf.dtype)) for path, leaf in found)
    return _structure(gaussian, {p.path: i for i, p in enumerate(parameters)}), parameters


def _structure(gaussian: Gaussian, positions: dict[str, int]) -> Structure:
    if isinstance(gaussian, Blocks):
        return Structure("blocks", blocks=tuple(_structure(block, positions) for block in gaussian.blocks))
    if isinstance(gaussian, LowRankUpdate):
        return Structure("low_rank_update", rank=gaussian.rank, blocks=(_structure(gaussian.base, positions),))
    rank = gaussian.rank if isinstance(gaussian, LowRank) else None
    found = tuple(positions[path] for path in _tree.paths(gaussian.mean))
    return Structure(_kind(gaussian), found, rank, matrix=_matrix(gaussian, positions))


def _matrix(gaussian: Gaussian, positions: dict[str, int]) -> MatrixOf | None:
    if not isinstance(gaussian, Kronecker):
        return None
    layout = gaussian.layout
    bias = None if layout.bias is None else positions[layout.bias]
    return MatrixOf(positions[layout.weights], bias, layout.rearrangement.steps)


def _layout(matrix: MatrixOf, parameters: Sequence[Parameter]) -> MatrixLayout:
    weights = parameters[matrix.weights]
    bias = None if matrix.bias is None else parameters[matrix.bias].path
    return MatrixLayout(weights.path, Rearrangement(weights.shape, matrix.steps), bias)


# ---------------------------------------------------------------- arrays


def _leaf_blocks(structure: Structure, place: str = "") -> Iterator[tuple[Structure, str]]:
    """The structures inside, each with its place, which ends the names of its arrays."""
    if structure.kind != "blocks":
        yield structure, place
    for i, block in enumerate(structure.blocks):
        yield from _leaf_blocks(block, _base(place) if structure.kind == "low_rank_update" else f"{place}/{i}")


def _base(place: str) -> str:
    """The place of the base of a low-rank update."""
    return f"{place}/base"


def _update(place: str) -> str:
    """The name of the columns of a low-rank update: of each update of an update its own."""
    return "update" + "_of_base" * place.count("/base")


def _shapes(field: str, shape: tuple[int, ...], rank: int | None) -> _Shapes:
    if field == "diagonal":
        return ((), shape)
    return ((rank or 0, *shape),) if field == "basis" else (shape,)


def expected(header: Header) -> dict[str, tuple[_Shapes, str | None]]:
    """Name to admissible shapes, and to the dtype where the header gives it, for every tensor of a file."""
    wanted: dict[str, tuple[_Shapes, str | None]] = {}
    for structure, place in _leaf_blocks(header.structure):
        if structure.kind == "low_rank_update":
            parameters = [header.parameters[i] for i in covered_by(structure)]
            shapes = {p.path: ((structure.rank or 0, *p.shape),) for p in parameters}
            wanted |= {f"{_update(place)}/{path}": (shape, None) for path, shape in shapes.items()}
            wanted[f"eigenvalues{place}"] = ((structure.rank or 0,),), None
            continue
        layout = _LAYOUTS[structure.kind]
        found = [header.parameters[i] for i in structure.parameters]
        for p in found:
            for field in layout.trees:
                shapes = _shapes(field, p.shape, structure.rank)
                wanted[f"{field}/{p.path}"] = (shapes, p.dtype if field == "mean" else None)
        size = sum(math.prod(p.shape) for p in found)
        whole: dict[str, _Shapes] = {"eigenvalues": ((structure.rank or 0,),), "cholesky": ((size, size),)}
        if structure.matrix is not None:
            whole |= _kronecker_shapes(structure.matrix, header.parameters)
        wanted |= {f"{field}{place}": (whole[field], None) for field in layout.arrays}
    return wanted


def _kronecker_shapes(matrix: MatrixOf, parameters: Sequence[Parameter]) -> dict[str, _Shapes]:
    shape = _layout(matrix, parameters).rearrangement.result
    if len(shape) != 3:
        raise ValueError(f"the steps to a matrix end in the shape {shape}, not in (groups, inputs, outputs)")
    groups, inputs, outputs = shape
    if matrix.bias is not None:
        inputs += 1
        if math.prod(parameters[matrix.bias].shape) != groups * outputs:
            raise ValueError(f"a bias of shape {parameters[matrix.bias].shape} is no row of matrices {shape}")
    square = {"inputs": ((groups, inputs, inputs),), "outputs": ((groups, outputs, outputs),)}
    return {"scale": ((), (inputs,)), "spectrum": ((groups, inputs, outputs),), **square}


def tensors_of(gaussian: Gaussian, header: Header) -> dict[str, np.ndarray]:
    """Name to array.

    Raises:
        ValueError: arrays whose shapes do not fit together, as those of a Gaussian made by vmap.
    """
    # safetensors writes memory as it lies, so it must lie in row-major order.
    tensors = {name: np.asarray(x, order="C") for name, x in _named(gaussian, "")}
    for name, (shapes, _) in expected(header).items():
        if tensors[name].shape not in shapes:
            raise ValueError(
                f"{name!r} of the Gaussian has shape {tensors[name].shape}, and its mean asks for "
                f"{' or '.join(map(str, shapes))}; save the Gaussians of a vmap one by one"
            )
    return tensors


def _named(gaussian: Gaussian, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(gaussian, Blocks):
        for i, block in enumerate(gaussian.blocks):
            yield from _named(block, f"{place}/{i}")
        return
    if isinstance(gaussian, LowRankUpdate):
        for path, leaf in _tree.by_paths(gaussian.basis).items():
            yield f"{_update(place)}/{path}", leaf
        yield f"eigenvalues{place}", gaussian.eigenvalues
        yield from _named(gaussian.base, _base(place))
        return
    layout = _LAYOUTS[_kind(gaussian)]
    for field in layout.trees:
        for path, leaf in _tree.by_paths(getattr(gaussian, field)).items():
            yield f"{field}/{path}", leaf
    for field in layout.arrays:
        yield f"{field}{place}", getattr(gaussian, field)


def rebuild(header: Header, tensors: dict[str, jax.Array], target: Target) -> Gaussian:
    """The Gaussian from its arrays, over the tree of ``target``."""

    def build(structure: Structure, place: str) -> Gaussian:
        if structure.kind == "blocks":
            return Blocks(tuple(build(block, f"{place}/{i}") for i, block in enumerate(structure.blocks)))
        if structure.kind == "low_rank_update":
            found = {i: header.parameters[i].path for i in covered_by(structure)}
            basis = target.place({i: tensors[f"{_update(place)}/{path}"] for i, path in found.items()})
            return LowRankUpdate(build(structure.blocks[0], _base(place)), basis, tensors[f"eigenvalues{place}"])
        layout = _LAYOUTS[structure.kind]
        paths = {i: header.parameters[i].path for i in structure.parameters}
        fields: dict[str, Any] = {
            field: target.place({i: tensors[f"{field}/{path}"] for i, path in paths.items()}) for field in layout.trees
        }
        fields |= {field: tensors[f"{field}{place}"] for field in layout.arrays}
        if structure.kind == "dense":
            sizes = {header.parameters[i].path: math.prod(header.parameters[i].shape) for i in structure.parameters}
            fields["cholesky"] = reordered(fields["cholesky"], sizes, _tree.paths(fields["mean"]))
        if structure.matrix is not None:
            fields["layout"] = _layout(structure.matrix, header.parameters)
        return layout.make(**fields)

    return build(header.structure, "")


# ---------------------------------------------------------------- values


def check_values(gaussian: Gaussian) -> None:
    """Raise a ``ValueError`` for values that no constructor would have let through."""
    if isinstance(gaussian, Blocks):
        for block in gaussian.blocks:
            check_values(block)
        return
    if isinstance(gaussian, LowRankUpdate):
        check_values(gaussian.base)
        _check_columns(gaussian)
        return
    _tree.check_finite("mean", gaussian.mean)
    if isinstance(gaussian, Diagonal | LowRank):
        _tree.check_positive("diagonal", gaussian.diagonal)
    if isinstance(gaussian, LowRank):
        _check_columns(gaussian)
    if isinstance(gaussian, Dense):
        _check_cholesky(gaussian.cholesky)
    if isinstance(gaussian, Kronecker):
        _check_kronecker(gaussian)


def _check_columns(gaussian: LowRank | LowRankUpdate) -> None:
    eigenvalues = gaussian.eigenvalues
    _tree.check_finite("basis", gaussian.basis)
    _tree.check_finite("eigenvalues", eigenvalues)
    if not bool(jnp.all(eigenvalues > -1)):
        raise ValueError(f"eigenvalues must be greater than -1; the smallest is {float(jnp.min(eigenvalues)):.9g}")
    gram = _tree.columns_gram(gaussian.basis, gaussian.basis)
    # Half of the digits: far above the rounding of a sum over all parameters, far below any real mistake.
    tolerance = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(gaussian.basis)) ** 0.5
    # A zero column goes with a zero eigenvalue, and may have been rotated among such columns: then Q^T Q is a
    # projection that leaves the eigenvalues alone, instead of the identity.
    projection = float(jnp.max(jnp.abs(gram @ gram - gram)))
    kept = float(jnp.max(jnp.abs(gram * eigenvalues - jnp.diag(eigenvalues)) / (1 + jnp.abs(eigenvalues))))
    if max(projection, kept) > tolerance:
        raise ValueError(f"the columns of basis are not orthonormal: off by {max(projection, kept):.3g}")


def _check_cholesky(cholesky: jax.Array) -> None:
    _tree.check_finite("cholesky", cholesky)
    if bool(jnp.any(jnp.triu(cholesky, 1) != 0)):
        raise ValueError("cholesky is not lower triangular")
    _tree.check_positive("the diagonal of cholesky", jnp.diagonal(cholesky))


def _check_kronecker(gaussian: Kronecker) -> None:
    _tree.check_positive("scale", gaussian.scale)
    _tree.check_positive("spectrum", gaussian.spectrum)
    for name, basis in (("inputs", gaussian.inputs), ("outputs", gaussian.outputs)):
        _tree.check_finite(name, basis)
        # Half of the digits, as for a low-rank basis.
        off = float(jnp.max(jnp.abs(basis.mT @ basis - jnp.eye(basis.shape[-1]))))
        if off > float(jnp.finfo(basis.dtype).eps) ** 0.5:
            raise ValueError(f"the columns of {name} are not orthonormal: off by {off:.3g}")
