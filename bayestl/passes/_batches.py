"""All examples of a data set in their order, some at a time, with weights: in one compiled program, or one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from bayestl._arguments import check_arguments
from bayestl._placement import check_sharding, num_shares, put, replicate
from bayestl._types import Batch, Data, Inputs, Key, Targets
from bayestl.passes import _loop
from bayestl.passes._reader import HostReader, reader_of
from bayestl.passes._weights import check_weights

FIRST = 64
"""How many examples of a stream are looked at in advance."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batches:
    """All examples, in their order, ``batch_size`` at a time; the last batch is filled up, with weights of 0.

    Made by :func:`batches`. It is a pytree, so it can be an argument of a compiled program, which passes over the data
    with :meth:`sum` and :meth:`map`. Outside compiled programs it is an iterable of batches. Data that are not in
    memory are read again in every pass, one batch ahead, through a callback from the compiled program to the host.

    Attributes:
        inputs: pytree of arrays (N, ...); with a reader only the first examples, which represent all of them where
            shapes and values are checked.
        targets: pytree of arrays (N, ...); with a reader only the first ones.
        weights: (N,) numbers >= 0, how often each example counts; None if each counts once.
        batch_size: examples per batch, static.
        reader: reads data that are not in memory; None if they are; static.
        sharding: how a batch lies on a mesh, or None; static.
    """

    inputs: Inputs
    targets: Targets
    weights: jax.Array | None
    batch_size: int = dataclasses.field(metadata={"static": True})
    reader: HostReader | None = dataclasses.field(default=None, metadata={"static": True})
    sharding: NamedSharding | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def num_examples(self) -> int:
        """N, including examples of weight 0."""
        return _length(self.inputs) if self.reader is None else self.reader.num_examples

    @property
    def num_batches(self) -> int:
        """ceil(N / batch_size)."""
        return -(-self.num_examples // self.batch_size)

    def get(self, number: int | jax.Array) -> Batch:
        """Batch ``number``, which may be traced. Its weights, (B,) of float32, are 0 for padding.

        Examples are gathered, not sliced out of a padded copy of the data. Those of weight 0 are overwritten by a copy
        of one that counts, so nothing in them, not even a NaN, can reach a sum.
        """
        rows = self._split(number * self.batch_size + jnp.arange(self.batch_size))
        weights = (rows < self.num_examples).astype(jnp.float32)
        if self.reader is not None:
            inputs, targets = self.reader.traced(jnp.asarray(number), self.batch_size, (self.inputs, self.targets))
            return self._split(Batch(inputs, targets, weights))
        rows = jnp.minimum(rows, self.num_examples - 1)
        if self.weights is not None:
            given = jnp.asarray(self.weights, jnp.float32)
            weights = weights * given[rows]
            rows = jnp.where(weights > 0, rows, jnp.argmax(given > 0))
        inputs, targets = jax.tree.map(lambda x: x[rows], (self.inputs, self.targets))
        return self._split(Batch(inputs, targets, weights))

    def __iter__(self) -> Iterator[Batch]:
        """The batches in turn, outside compiled programs."""
        for number in range(self.num_batches):
            if self.reader is None:
                yield _get(self, number)
                continue
            inputs, targets = self.reader.read(number, self.batch_size)
            real = np.arange(self.batch_size) < self.num_examples - number * self.batch_size
            yield self._placed(inputs, targets, real.astype(np.float32))

    def take(self, rows: np.ndarray) -> Batch:
        """The examples of these rows, in this order and without padding, outside compiled programs.

        Args:
            rows: (n,) row numbers in 0, ..., N - 1, on the host.
        """
        if self.reader is not None:
            return self._placed(*self.reader.take(rows))
        weights = None if self.weights is None else jnp.asarray(self.weights)[rows]
        inputs, targets = jax.tree.map(lambda x: jnp.asarray(x)[rows], (self.inputs, self.targets))
        return Batch(inputs, targets, weights)

    def sum(
        self, key: Key, fn: Callable[..., Any], stored: Any = None, add: Callable[[Any, Any], Any] | None = None
    ) -> Any:
        """The sum over batches of ``fn(key of the batch, batch)``, a pytree of arrays, with one batch held at a time.

        With ``stored``, a result of :meth:`map`, it sums ``fn(key, batch, entry of stored for this batch)``. With
        ``add``, a function of the sum so far and one more term, it adds by that; zeros must then stand for no terms.
        """
        extra = () if stored is None else (stored,)

        def one(number: jax.Array, extra: tuple) -> Any:
            return fn(jax.random.fold_in(key, number), self.get(number), *extra)

        return _loop.total(one, self.num_batches, extra, add)

    def map(self, key: Key, fn: Callable[[Key, Batch], Any]) -> Any:
        """``fn(key of the batch, batch)`` for every batch, stacked along a leading axis (number of batches, ...)."""
        return _loop.stacked(lambda number: fn(jax.random.fold_in(key, number), self.get(number)), self.num_batches)

    def total_weight(self) -> jax.Array:
        """How many examples there are, counted by weight: a scalar."""
        if self.weights is None:
            return jnp.asarray(self.num_examples, jnp.result_type(float))
        return jnp.sum(jnp.asarray(self.weights, jnp.result_type(float)))

    def run(self, program: Callable[..., Any], *args: Any, check: Callable[..., None] | None = None) -> Any:
        """``program(*args)``, for a program that passes over these data.

        Targets that are read, numpy (n, ...), are given to ``check(targets, rows=...)`` first, which raises on those
        that do not fit.

        If reading fails, this raises the original error, not XLA's, which only quotes its text.
        """
        if self.reader is None:
            return program(*args)
        self.reader.failure, self.reader.check = None, check
        try:
            return jax.block_until_ready(program(*args))
        except Exception:
            failure, self.reader.failure = self.reader.failure, None
            if failure is None:
                raise
            raise failure from None
        finally:
            self.reader.check = None

    def to_host(self, tree: Any) -> Any:
        """A result computed for a batch, leaves (B, ...), as numpy arrays; on a mesh every process gets all of it."""
        if self.sharding is not None and not self.sharding.is_fully_addressable:
            everywhere = NamedSharding(self.sharding.mesh, PartitionSpec())
            tree = jax.jit(lambda x: x, out_shardings=everywhere)(tree)
        return jax.tree.map(np.asarray, jax.device_get(tree))

    def _split(self, tree: Any) -> Any:
        """A batch, or its rows, spread over the devices of the mesh; unchanged if there is none."""
        return tree if self.sharding is None else jax.lax.with_sharding_constraint(tree, self.sharding)

    def _placed(self, inputs: Inputs, targets: Targets, weights: np.ndarray | None = None) -> Batch:
        """A batch from the host, put on the device or spread over the devices of the mesh."""
        parts = (inputs, targets, weights)
        if self.sharding is None:
            return Batch(*jax.device_put(parts))
        return Batch(*jax.tree.map(partial(put, sharding=self.sharding), parts))


def batches(
    data: Data | Batch | Batches, batch_size: int | None = None, *, sharding: NamedSharding | None = None
) -> Batches:
    """All examples of a data set, to be passed over a batch at a time.

    The result can be given as the data to everything that passes over all of them (curvature, evidence,
    ``metrics.evaluate``). A mesh is therefore named once, here:
    ``laplace(key, joint, params, batches(data, 64, sharding=s))``.

    Args:
        data: a data set in memory or a stream; one :class:`~bayestl.Batch`, whose weights count; or a result of this
            function, to be passed over with another batch size.
        batch_size: examples per batch; None for all at once, or for the batch size that ``data`` already has.
        sharding: how a batch lies on a mesh, ``NamedSharding(mesh, PartitionSpec("data"))``. Data in memory are then
            copied to every device of the mesh, and ``batch_size`` has to be a multiple of the devices along that axis.

    Raises:
        TypeError: data that are none of these.
        ValueError: a batch size below 1, or one that the mesh does not divide; negative or non-finite weights; arrays
            of different lengths.

    Example:
        >>> passes = btl.passes.batches(btl.data.arrays(jnp.ones((5, 2)), jnp.arange(5)), 2)
        >>> passes.num_batches, [batch.weights.tolist() for batch in passes][-1]
        (3, [1.0, 0.0])
        >>> passes.sum(jax.random.key(0), lambda key, batch: jnp.sum(batch.weights * batch.targets)).item()
        10.0
    """
    check_arguments(batches, locals(), skip=("data",))
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1, or None for all examples at once")
    passes = data if isinstance(data, Batches) else _all_at_once(data)
    size = passes.batch_size if batch_size is None else int(batch_size)
    size = min(size, passes.num_examples)
    if sharding is not None:
        check_sharding(sharding, 0 if batch_size is None else batch_size)
        inputs, targets, weights = replicate((passes.inputs, passes.targets, passes.weights), sharding.mesh)
        passes = Batches(inputs, targets, weights, size, passes.reader, sharding)
    # A batch size reduced to the size of the data, or by the caller, still gives every device a whole share.
    shares = num_shares(passes.sharding) if passes.sharding is not None else 1
    return dataclasses.replace(passes, batch_size=-(-size // shares) * shares)


def first_examples(data: Data | Batch | Batches) -> Batch:
    """The examples that are checked against a model before a run: all if they are in memory, else the first 64."""
    if isinstance(data, Batches):
        return Batch(data.inputs, data.targets, data.weights)
    if isinstance(data, Batch):
        return data
    held = _checked(data).resident()
    return data.first(FIRST) if held is None else held


def whole(data: Data | Batch | Batches) -> Batch:
    """All examples as one batch, for computations that need them all at once.

    Raises:
        TypeError: data that are not in memory.
    """
    if isinstance(data, Batch):
        examples = data
    elif isinstance(data, Batches):
        examples = None if data.reader is not None else first_examples(data)
    else:
        examples = _checked(data).resident()
    if examples is None or any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(examples)):
        raise TypeError(
            f"data is a {type(data).__name__}, which does not hold its examples in memory, and all are needed at once: "
            "give bayestl.data.arrays(inputs, targets)"
        )
    return examples


def _all_at_once(data: Data | Batch) -> Batches:
    examples, num = first_examples(data), None
    if not isinstance(data, Batch):
        num = data.num_examples
        if data.resident() is None:
            return Batches(examples.inputs, examples.targets, None, num, reader_of(data))
    _check_lengths(examples, num)
    if examples.weights is not None:
        check_weights(examples.weights, _length(examples.inputs), needs_one=True)
    return Batches(*examples, _length(examples.inputs))


def _check_lengths(examples: Batch, num_examples: int | None) -> None:
    lengths = {x.shape[0] if x.shape else 0 for x in jax.tree.leaves((examples.inputs, examples.targets))}
    expected = {num_examples} if num_examples is not None else lengths
    if len(lengths) != 1 or lengths != expected or 0 in lengths:
        raise ValueError(
            f"the arrays of the data have leading axes of lengths {sorted(lengths)}, and there are "
            f"{num_examples or 'equally many'} examples: every array needs one row per example (of a stacked data set, "
            "pass over one member at a time)"
        )


def _checked(data: Any) -> Data:
    if not isinstance(data, Data):
        raise TypeError(
            f"data is a {type(data).__name__}, which neither holds its examples nor can be read by rows; give "
            "bayestl.data.arrays(inputs, targets), bayestl.data.stream(source, example), or a bayestl.Batch"
        )
    return data


def _length(tree: Any) -> int:
    return jax.tree.leaves(tree)[0].shape[0]


@jax.jit
def _get(passes: Batches, number: int) -> Batch:
    return passes.get(number)
