"""What a covariance structure keeps in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax

from bayestl import _tree
from bayestl._types import Params


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


class Shape(NamedTuple):
    """What shape an array in a file may have.

    Attributes:
        shape: this one,
        broadcasting: or any that broadcasts to it.
    """

    shape: tuple[int, ...]
    broadcasting: bool = False

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array may have this shape."""
        return broadcasts(shape, self.shape) if self.broadcasting else shape == self.shape

    def __str__(self) -> str:
        return f"one that broadcasts to {self.shape}" if self.broadcasting else str(self.shape)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of ``shape`` stands for one of shape ``to``."""
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
    """What a file keeps of a Gaussian.

    Attributes:
        trees: by field, trees over the parameters: ``mean`` for a structure that is not made of others, and more.
        arrays: by field, arrays for all of the parameters together.
        settings: JSON values that are no arrays.
        parts: the Gaussians that it is made of.
    """

    trees: Mapping[str, Params] = {}
    arrays: Mapping[str, jax.Array] = {}
    settings: Mapping[str, Any] = {}
    parts: tuple[Any, ...] = ()


class Storable:
    """A structure that :func:`~bayestl.gaussians.save` and :func:`~bayestl.gaussians.load` know once it has a ``kind``.

    It joins them by ``class Name(Gaussian, kind="name")`` and the four methods below.
    """

    kind: ClassVar[str] = ""
    """The name of the structure in files; empty where it is in none."""
    kinds: ClassVar[dict[str, type[Storable]]] = {}
    """The structures that a file may hold, by name."""
    num_parts: ClassVar[int | None] = 0
    """How many Gaussians the structure is made of. None: any number, at least one."""

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind:
            cls.kind = kind
            Storable.kinds[kind] = cls

    def stored(self) -> Stored:
        """What a file keeps of the Gaussian."""
        raise TypeError(f"a {type(self).__name__} cannot be saved: its class has no kind, the name of it in files")

    @classmethod
    def stored_shapes(cls, settings: Mapping[str, Any], parameters: Sequence[Parameter]) -> Shapes:
        """The shapes of the arrays of :meth:`stored`, asked for before any array of a file is read.

        Args:
            settings: as in :class:`Stored`, but nobody vouches for them.
            parameters: those that the Gaussian is over.

        Raises:
            ValueError: settings that :meth:`stored` would not have given.
        """
        raise NotImplementedError(f"{cls.__name__} is in no file")

    @classmethod
    def from_stored(cls, stored: Stored) -> Storable:
        """The Gaussian again, from arrays that have the shapes of :meth:`stored_shapes`.

        A tree may be in other containers, and so its leaves in another order, than when it was stored.
        """
        raise NotImplementedError(f"{cls.__name__} is in no file")

    def check_values(self) -> None:
        """Raise a ``ValueError`` for values that no constructor would have let through; parts are checked before."""
        raise NotImplementedError(f"{type(self).__name__} is in no file")


def check_settings(settings: Mapping[str, Any], names: set[str]) -> None:
    """Raise a ``ValueError`` unless there are settings of just these names."""
    if set(settings) != names:
        raise ValueError(f"a structure has the settings {sorted(settings)}, not {sorted(names)}")
