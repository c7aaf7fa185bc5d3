"""A data set that lives on the device and is gathered from inside the program."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Int

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._placement import replicate
from bayestl._types import Batch, Inputs, Key, Targets
from bayestl.data import _checks, _order


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class ArrayData:
    """Examples as arrays on the device; made by :func:`arrays` or :func:`stack`.

    Attributes:
        inputs: pytree of arrays (N, ...).
        targets: pytree of arrays (N, ...).
        num_examples: N, static. It stays N for a stacked data set, inside and outside ``vmap``.
    """

    inputs: Inputs
    targets: Targets
    num_examples: int = dataclasses.field(metadata={"static": True})
    _target_ndim: int = dataclasses.field(metadata={"static": True}, repr=False)

    @property
    def num_members(self) -> int | None:
        """Length of the member axis of a stacked data set; ``None`` for an ordinary one, and inside ``vmap``."""
        leaf = jax.tree.leaves(self.targets)[0]
        return None if leaf.ndim == self._target_ndim else leaf.shape[0]

    def __repr__(self) -> str:
        members = "" if self.num_members is None else f"{self.num_members} members, "
        lead = 1 if self.num_members is None else 2
        return (
            f"ArrayData({members}{self.num_examples:,} examples, inputs {_shapes(self.inputs, lead)}, "
            f"targets {_shapes(self.targets, lead)})"
        )

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches it takes to see every example: ceil(N / batch_size)."""
        return _order.steps_per_epoch(self.num_examples, batch_size)

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse a batch that this data set cannot fill.

        Raises:
            ValueError: ``batch_size`` is not in 1, ..., N.
        """
        check_arguments(ArrayData.check_batch_size, locals())
        _order.check_batch_size(batch_size, self.num_examples, "data set")

    def resident(self) -> Batch:
        """All examples, in their order."""
        return Batch(self.inputs, self.targets)

    def first(self, num: int) -> Batch:
        """The first ``num`` examples, or all where there are fewer."""
        check_arguments(ArrayData.first, locals())
        return Batch(*jax.tree.map(lambda x: x[:num], (self.inputs, self.targets)))

    def rows(self, rows: np.ndarray) -> tuple[Any, Any]:
        """``(inputs, targets)`` of these rows, on the host."""
        return jax.tree.map(lambda x: np.asarray(x[rows]), (self.inputs, self.targets))

    def max_steps(self, batch_size: int) -> None:
        """No limit: a program may hold all steps of a run."""

    @contextlib.contextmanager
    def open(
        self,
        key: Key,
        batch_size: int,
        num_steps: int,
        sharding: NamedSharding | None = None,
        check: Callable[..., None] | None = None,
    ) -> Iterator[Callable[[int], ArrayData]]:
        """For :func:`~bayestl.fit`: the function from a step to this data set, which serves them all.

        With a ``sharding``, every device of its mesh holds a copy of all examples, and gathers its part of each batch.
        ``check`` is for data that are read: here all are checked before a run.
        """
        here = self if sharding is None else replicate(self, sharding.mesh)
        yield lambda start: here

    def indices(
        self, key: Key, step: int | Int[Array, ""], num_steps: int, batch_size: int
    ) -> Int[Array, "steps batch"]:
        """Rows of the batches at steps ``step, ..., step + num_steps - 1``.

        Step s lies in epoch e = s // ceil(N / B), which orders the examples by ``permutation(fold_in(key, e), N)``,
        and takes the B next positions of it; the last batch of an epoch is filled up from the start of the same
        permutation. So rows depend on ``(key, step)`` alone, however a run is cut into chunks.

        Args:
            key: the key of the run.
            step: first step, >= 0; may be traced.
            num_steps: how many steps, >= 1, static. Each epoch that they touch is permuted once.
            batch_size: B, in 1, ..., N, static.

        Example:
            >>> data = btl.data.arrays(np.zeros((5, 2)), np.arange(5))
            >>> rows = data.indices(jax.random.key(0), 0, num_steps=3, batch_size=2)
            >>> rows.shape, sorted(set(rows.ravel().tolist()))
            ((3, 2), [0, 1, 2, 3, 4])
        """
        return _order.epoch_rows(key, step, num_steps, batch_size, self.num_examples)

    def gather(self, indices: Int[Array, " batch"]) -> Batch:
        """The examples in the rows ``indices``, which must lie in 0, ..., N - 1 (not checked; see :meth:`take`)."""
        if self.num_members is not None:
            raise ValueError(
                f"this data set is stacked, one for each of {self.num_members} members; "
                "gather from it inside jax.vmap over its leading axis"
            )

        def rows(x: jax.Array) -> jax.Array:
            return jnp.take(x, indices, axis=0, mode="clip")

        return Batch(jax.tree.map(rows, self.inputs), jax.tree.map(rows, self.targets))

    def batch(self, key: Key, step: int | Int[Array, ""], batch_size: int) -> Batch:
        """The batch of step ``step``: a pure function of ``(key, step)``."""
        check_arguments(ArrayData.batch, locals())
        _order.check_step(step)
        return self.gather(self.indices(key, step, 1, batch_size)[0])

    def take(self, rows: Any) -> ArrayData:
        """The data set that holds only ``rows``, in their order.

        Args:
            rows: (n,) row numbers in 0, ..., N - 1, on the host or the device; n >= 1.

        Raises:
            TypeError: ``rows`` are not integers.
            ValueError: no rows, or one outside the data set.

        Example:
            >>> data = btl.data.arrays(np.zeros((5, 2)), np.arange(5))
            >>> data.take([4, 0]).targets.tolist()
            [4, 0]
        """
        rows = rows if isinstance(rows, jax.Array) else np.asarray(rows)
        if rows.ndim != 1 or rows.shape[0] == 0:
            raise ValueError(f"rows has shape {rows.shape}; give at least one row number, in an array of shape (n,)")
        if not jnp.issubdtype(rows.dtype, jnp.integer):
            raise TypeError(f"rows has dtype {rows.dtype}; give row numbers (np.flatnonzero turns a mask into them)")
        if _tree.is_concrete(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.num_examples:
            raise ValueError(
                f"rows run from {int(rows.min())} to {int(rows.max())}; they must lie in 0, ..., "
                f"{self.num_examples - 1}, the rows of this data set"
            )
        batch = self.gather(jnp.asarray(rows))
        return ArrayData(batch.inputs, batch.targets, rows.shape[0], self._target_ndim)


def arrays(inputs: Inputs, targets: Targets) -> ArrayData:
    """A data set from arrays, copied to the device once.

    For everything that fits in device memory: batches are then gathered inside the compiled program, without a copy
    from the host per step. Dtypes are kept as far as JAX keeps them (uint8 pictures stay uint8; without
    ``jax_enable_x64`` float64 becomes float32 and int64 becomes int32, an error where that would change integers).

    Args:
        inputs: pytree of numeric arrays (N, ...).
        targets: pytree of numeric arrays (N, ...).

    Raises:
        TypeError: an array is not numeric.
        ValueError: no examples, arrays of different lengths, NaN or infinite values.

    Example:
        >>> data = btl.data.arrays(np.zeros((6, 8, 8), np.uint8), np.arange(6) % 3)
        >>> data.num_examples, data.inputs.dtype.name
        (6, 'uint8')
        >>> data.batch(jax.random.key(0), step=0, batch_size=4).targets.shape
        (4,)
    """
    check_arguments(arrays, locals(), skip=("inputs", "targets"))
    inputs, targets = _checks.place("inputs", inputs), _checks.place("targets", targets)
    num_examples = _checks.common_length(inputs, targets)
    return ArrayData(inputs, targets, num_examples, jax.tree.leaves(targets)[0].ndim)


def stack(members: Sequence[ArrayData]) -> ArrayData:
    """Data sets of equal size as one with a leading member axis, for many fits at once.

    ``jax.vmap`` over axis 0 gives every member its own; inside it each is an ordinary data set.

    Args:
        members: data sets with equal numbers of examples, structure, shapes and dtypes.

    Raises:
        ValueError: no members, or members that differ.

    Example:
        >>> pool = btl.data.arrays(np.arange(8.0), np.arange(8))
        >>> both = btl.data.stack([pool.take([0, 1, 2]), pool.take([5, 6, 7])])
        >>> both.num_members, both.num_examples
        (2, 3)
        >>> jax.vmap(lambda data: data.gather(jnp.array([0])).targets[0])(both).tolist()
        [0, 5]
    """
    check_arguments(stack, locals())
    members = list(members)
    if not members:
        raise ValueError("stack needs at least one data set, got none")
    for number, member in enumerate(members):
        _check_alike(number, member, members[0])
    return jax.tree.map(lambda *xs: jnp.stack(xs), *members)


def _check_alike(number: int, member: ArrayData, first: ArrayData) -> None:
    if member.num_members is not None:
        raise ValueError(f"member {number} is itself stacked; stack ordinary data sets")
    if member.num_examples != first.num_examples:
        raise ValueError(
            f"member {number} has {member.num_examples} examples and member 0 has {first.num_examples}; "
            "members of one stack need equally many: take as many rows of each"
        )
    have, want = _tree.by_paths(member), _tree.by_paths(first)
    described = [{path: (x.shape, x.dtype.name) for path, x in tree.items()} for tree in (have, want)]
    if described[0] != described[1] or jax.tree.structure(member) != jax.tree.structure(first):
        raise ValueError(
            f"member {number} and member 0 differ in structure, shape or dtype: {described[0]} against {described[1]}"
        )


def _shapes(tree: Any, lead: int) -> str:
    """Dtype and shape of one example, leaf by leaf."""
    shapes = [f"{path}{': ' if path else ''}{x.dtype} {x.shape[lead:]}" for path, x in _tree.by_paths(tree).items()]
    return shapes[0] if len(shapes) == 1 else f"[{', '.join(shapes[:4])}{', ...' if len(shapes) > 4 else ''}]"
