"""What a covariance structure stores in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax

from bayestl import _tree
from bayestl._types import Params


class Parameter(NamedTuple):
    """One leaf of the mean.

    Attributes:
        keys: the JAX key entries of its path.
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


class Shape(NamedTuple):
    """Which shapes an array in a file may have.

    Attributes:
        shape: a shape.
        broadcasting: whether any shape that broadcasts to it will do.
    """

    shape: tuple[int, ...]
    broadcasting: bool = False

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array may have this shape."""
        return broadcasts(shape, self.shape) if self.broadcasting else shape == self.shape

    def __str__(self) -> str:
        return f"one that broadcasts to {self.shape}" if self.broadcasting else str(self.shape)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether ``shape`` broadcasts to ``to``."""
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(n in (1, m) for n, m in pairs)


class Shapes(NamedTuple):
    """The shapes of the arrays of a :class:`Stored`.

    Attributes:
        trees: field to path to shape.
        arrays: field to shape.
    """

    trees: dict[str, dict[str, Shape]]
    arrays: dict[str, Shape]


class Stored(NamedTuple):
    """What a file stores of a Gaussian.

    Attributes:
        trees: by field, trees over the parameters, among them ``mean`` unless the structure consists of others.
        arrays: by field, arrays for all parameters together.
        settings: JSON values.
        parts: the Gaussians that it consists of.
    """

    trees: Mapping[str, Params] = {}
    arrays: Mapping[str, jax.Array] = {}
    settings: Mapping[str, Any] = {}
    parts: tuple[Any, ...] = ()


class Storable:
    """A structure that :func:`~bayestl.gaussians.save` and :func:`~bayestl.gaussians.load` can handle.

    ``class Name(Gaussian, kind="name")`` registers it; it has to define the four methods below.
    """

    kind: ClassVar[str] = ""
    """The name of the structure in files; empty if it cannot be saved."""
    kinds: ClassVar[dict[str, type[Storable]]] = {}
    """The structures that a file may contain, by name."""
    num_parts: ClassVar[int | None] = 0
    """How many Gaussians the structure consists of; None for any number, at least one."""

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind:
            cls.kind = kind
            Storable.kinds[kind] = cls

    def stored(self) -> Stored:
        """What a file stores of the Gaussian."""
        raise TypeError(f"a {type(self).__name__} cannot be saved: its class has no kind, the name of it in files")

    @classmethod
    def stored_shapes(cls, settings: Mapping[str, Any], parameters: Sequence[Parameter]) -> Shapes:
        """The shapes of the arrays of :meth:`stored`, needed before any array of a file is read.

        Args:
            settings: as in :class:`Stored`, but from a file and not to be trusted.
            parameters: the parameters of the Gaussian.

        Raises:
            ValueError: settings that :meth:`stored` cannot have written.
        """
        raise NotImplementedError(f"{cls.__name__} is in no file")

    @classmethod
    def from_stored(cls, stored: Stored) -> Storable:
        """The Gaussian from arrays that have the shapes of :meth:`stored_shapes`.

        The tree may have other containers than when it was stored, and thus its leaves another order.
        """
        raise NotImplementedError(f"{cls.__name__} is in no file")

    def check_values(self) -> None:
        """Raise a ``ValueError`` for values that every constructor refuses; parts have already been checked."""
        raise NotImplementedError(f"{type(self).__name__} is in no file")


def check_settings(settings: Mapping[str, Any], names: set[str]) -> None:
    """Raise a ``ValueError`` unless there are settings of just these names."""
    if set(settings) != names:
        raise ValueError(f"a structure has the settings {sorted(settings)}, not {sorted(names)}")
