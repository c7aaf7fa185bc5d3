"""Examples read one by one from a source with random access, checked to be alike and stacked on the host."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from bayestl import _tree

Rows = Sequence[int] | Int[np.ndarray, " rows"]


class Leaf(NamedTuple):
    """What one array of every example looks like."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """A source, the function that turns a record into an example, and what an example looks like.

    Attributes:
        source: records with ``__len__`` and ``__getitem__``.
        example: ``record -> (inputs, targets)``, or ``(record, rng) -> (inputs, targets)``.
        takes_rng: which of the two.
        treedef: structure of ``(inputs, targets)``.
        leaves: its arrays, with the dtypes that they have on the device.
    """

    source: Any
    example: Callable[..., Any]
    takes_rng: bool
    treedef: Any
    leaves: tuple[Leaf, ...]

    def stack(self, rows: Rows, rng_of: Callable[[int], np.random.Generator]) -> list[np.ndarray]:
        """The arrays (len(rows), ...) of the examples in ``rows``; ``rng_of`` gives the generator of each position.

        Raises:
            ValueError: a row that cannot be read, that differs from the first, or that has values not finite.
            TypeError: a row whose arrays have another dtype.
        """
        stacked = [np.empty((len(rows), *leaf.shape), leaf.dtype) for leaf in self.leaves]
        for position, row in enumerate(map(int, rows)):
            pair = read_pair(self.source, self.example, row, rng_of(position) if self.takes_rng else None)
            values = jax.tree.leaves(pair)
            if jax.tree.structure(pair) != self.treedef:
                first = ", ".join(leaf.where for leaf in self.leaves)
                raise ValueError(
                    f"row {row} has {_paths(pair)} and row 0 has {first}; return one structure for all examples"
                )
            for out, leaf, value in zip(stacked, self.leaves, values, strict=True):
                out[position] = _alike(row, leaf, np.asarray(value))
        for out, leaf in zip(stacked, self.leaves, strict=True):
            _check_finite(rows, leaf, out)
        return stacked

    def tree(self, stacked: Sequence[Any]) -> tuple[Any, Any]:
        """``(inputs, targets)`` from their arrays."""
        return jax.tree.unflatten(self.treedef, stacked)

    @property
    def bytes(self) -> int:
        """Size of one example on the device."""
        return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in self.leaves)


def examples(source: Any, example: Callable[..., Any]) -> Examples:
    """A source and its decoding function, with the form of the first example."""
    check_source(source)
    if not callable(example):
        raise TypeError(
            f"example is a {type(example).__name__}; give a function from a record of the source to "
            "(inputs, targets), such as lambda record: (record['image'], record['label'])"
        )
    takes_rng = _takes_rng(example)
    pair = read_pair(source, example, 0, np.random.default_rng(0) if takes_rng else None)
    leaves = [
        _leaf(_where(_tree.path_string(path)), np.asarray(value))
        for path, value in jax.tree_util.tree_leaves_with_path(pair)
    ]
    for name, part in zip(("inputs", "targets"), pair, strict=True):
        if not jax.tree.leaves(part):
            raise ValueError(f"example returned {name} without an array; give an array, or a pytree of arrays")
    return Examples(source, example, takes_rng, jax.tree.structure(pair), tuple(leaves))


def check_source(source: Any) -> None:
    """Refuse a source that cannot be read at any row, or that is empty or endless."""
    missing = [name for name in ("__len__", "__getitem__") if not hasattr(source, name)]
    if missing:
        raise TypeError(
            f"source is a {type(source).__name__} without {' and '.join(missing)}; records are read in the order of "
            "the run's key, so give a source with random access: a tfds.data_source, a grain MapDataset, a list"
        )
    if len(source) == 0:
        raise ValueError("source has no records; give at least one")
    if len(source) > np.iinfo(np.int32).max:
        raise ValueError(f"source has {len(source)} records, an endless one; leave out repeat(): runs repeat by epochs")


def read_pair(source: Any, example: Callable[..., Any], row: int, rng: np.random.Generator | None) -> tuple[Any, Any]:
    """``(inputs, targets)`` of one row; errors name the row."""
    try:
        record = source[row]
    except Exception as error:
        raise ValueError(f"row {row} of the source cannot be read: {type(error).__name__}: {error}") from error
    try:
        pair = example(record) if rng is None else example(record, rng)
    except Exception as error:
        raise ValueError(f"example failed on row {row}: {type(error).__name__}: {error}") from error
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(
            f"example returned a {type(pair).__name__}{f' of {len(pair)}' if isinstance(pair, tuple) else ''} on row "
            f"{row}; it must return the pair (inputs, targets)"
        )
    return pair


def _takes_rng(example: Callable[..., Any]) -> bool:
    """Whether a function asks for a second argument that has no default."""
    try:
        parameters = inspect.signature(example).parameters.values()
    except (TypeError, ValueError):  # some functions written in C have no signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len([p for p in parameters if p.kind in positional and p.default is p.empty]) > 1


def _where(path: str) -> str:
    """A path in the pair, in the words of its two parts."""
    part, _, rest = path.partition("/")
    name = ("inputs", "targets")[int(part)]
    return f"{name} at {rest!r}" if rest else name


def _paths(pair: tuple[Any, Any]) -> str:
    return ", ".join(_where(path) for path in _tree.paths(pair))


def _leaf(where: str, value: np.ndarray) -> Leaf:
    if not (jnp.issubdtype(value.dtype, jnp.number) or value.dtype == np.bool_):
        raise TypeError(
            f"{where} of row 0 has dtype {value.dtype}; a data set holds numbers: decode pictures, encode labels as "
            "integers 0, 1, ..."
        )
    return Leaf(where, value.shape, np.dtype(jax.dtypes.canonicalize_dtype(value.dtype)))


def _alike(row: int, leaf: Leaf, value: np.ndarray) -> np.ndarray:
    """One array of an example in the dtype of all others."""
    if value.shape != leaf.shape:
        raise ValueError(
            f"{leaf.where} has shape {value.shape} in row {row} and {leaf.shape} in row 0; examples of a batch need "
            "one shape: resize, crop or pad them in example"
        )
    if value.dtype == leaf.dtype:
        return value
    cast = value.astype(leaf.dtype) if value.dtype.kind == leaf.dtype.kind else None
    if cast is None or (value.dtype.kind in "iu" and not np.array_equal(cast, value)):
        raise TypeError(
            f"{leaf.where} has dtype {value.dtype} in row {row}, and its values do not fit the {leaf.dtype} of row 0; "
            "return one dtype for all examples"
        )
    return cast


def _check_finite(rows: Rows, leaf: Leaf, values: np.ndarray) -> None:
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        bad = ~np.isfinite(values.reshape(len(rows), -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{leaf.where} has NaN or infinite values in row {int(rows[int(np.argmax(bad))])}, as {leaf.dtype}; "
                "fill them in or leave such rows out of the source"
            )
