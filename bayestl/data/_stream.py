"""A data set that streams: read, decoded and sent to the device while it computes."""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from bayestl._arguments import check_arguments
from bayestl._types import Batch, Key
from bayestl.data import _order
from bayestl.data._examples import Examples, examples
from bayestl.data._host_order import host_order
from bayestl.data._reader import Reader
from bayestl.data._window import StreamWindow

_PROBE = 64
_MIB = 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class StreamData:
    """Examples that stay where they are until a run asks for them; made by :func:`stream`.

    The batches of a run are those of the same examples in :func:`arrays`, bit for bit: they depend on the key and the
    step alone. So a run that goes on from a checkpoint needs no position of the stream, and the global batch is the
    same however many processes read it.

    Attributes:
        num_examples: N.
    """

    num_examples: int
    _examples: Examples = dataclasses.field(repr=False)
    _num_threads: int = dataclasses.field(repr=False)
    _num_workers: int = dataclasses.field(repr=False)
    _window_bytes: int = dataclasses.field(repr=False)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches it takes to see every example: ceil(N / batch_size)."""
        return _order.steps_per_epoch(self.num_examples, batch_size)

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse a batch that this data set cannot fill.

        Raises:
            ValueError: ``batch_size`` is not in 1, ..., N.
        """
        check_arguments(StreamData.check_batch_size, locals())
        _order.check_batch_size(batch_size, self.num_examples, "stream")

    def resident(self) -> None:
        """None: examples are read, not held."""

    def first(self, num: int) -> Batch:
        """The first ``num`` examples, or all where there are fewer, on the device."""
        check_arguments(StreamData.first, locals())
        rows = range(min(self.num_examples, num))
        return Batch(*jax.device_put(self._examples.tree(self._examples.stack(rows, np.random.default_rng))))

    def rows(self, rows: np.ndarray) -> tuple[Any, Any]:
        """``(inputs, targets)`` of these rows, on the host: how a pass reads them, again and again.

        They do not change from one reading to the next: an ``example`` that draws is given the same generator, that of
        its row, each time.

        Args:
            rows: (n,) row numbers in 0, ..., N - 1, n >= 1.

        Raises:
            ValueError: an example that cannot be read.
        """

        def read(part: np.ndarray) -> list[np.ndarray]:
            return self._examples.stack(part, lambda position: np.random.default_rng(int(part[position])))

        parts = np.array_split(rows, min(self._num_threads, len(rows)))
        if len(parts) == 1:
            return self._examples.tree(read(rows))
        with ThreadPoolExecutor(len(parts), thread_name_prefix="bayestl-rows") as pool:
            blocks = list(pool.map(read, parts))
        return self._examples.tree([np.concatenate(arrays) for arrays in zip(*blocks, strict=True)])

    def max_steps(self, batch_size: int) -> int:
        """How many batches of ``batch_size`` a window holds, at least 1."""
        return max(1, self._window_bytes // (batch_size * self._examples.bytes))

    @contextlib.contextmanager
    def open(
        self,
        key: Key,
        batch_size: int,
        num_steps: int,
        sharding: NamedSharding | None = None,
        check: Callable[..., None] | None = None,
    ) -> Iterator[Callable[[int], StreamWindow]]:
        """For :func:`~bayestl.fit`: the function from a step to the window of ``num_steps`` batches that starts there.

        Reading goes on in the background from each window to the next. Leaving the context ends it.

        Args:
            key: of the order.
            batch_size: B, of the global batch.
            num_steps: batches in a window, S.
            sharding: how one batch lies on a mesh; each process then reads the examples of its own devices only.
            check: ``(targets, rows=...)``, raises on targets (n, ...) of the rows (n,) that do not fit; called with
                every block that is read, in numpy and in another thread, where it must compute nothing with JAX.

        Raises:
            ValueError: ``batch_size`` is not in 1, ..., N; from the function: an example that cannot be read;
                whatever ``check`` raises.
        """
        self.check_batch_size(batch_size)
        order = host_order(key, batch_size, self.num_examples)
        reader = Reader(self._examples, order, num_steps, sharding, self._num_threads, self._num_workers, check)
        try:
            yield reader.window
        finally:
            reader.close()

    def batch(self, key: Key, step: int, batch_size: int) -> Batch:
        """The batch of step ``step``, read now: a pure function of ``(key, step)``."""
        check_arguments(StreamData.batch, locals())
        _order.check_step(step)
        order = host_order(key, batch_size, self.num_examples)
        read = self._examples.stack(order.rows(int(step)), lambda position: order.rng(int(step), position))
        return Batch(*jax.device_put(self._examples.tree(read)))


def stream(
    source: Any,
    example: Callable[..., Any],
    *,
    num_threads: int = 8,
    num_workers: int = 0,
    window_bytes: int = 64 * _MIB,
) -> StreamData:
    """A data set read from storage while the device computes.

    For everything that does not fit in device memory; what fits is faster in :func:`arrays`. Batches are read by grain,
    a window of many at a time, and the next window is read while the present one is in use, so the device waits only
    where reading is slower than training. On two cores, with 32x32x3 bytes from memory and a network of one layer, a
    run took in 40,000 pictures a second streamed and 60,000 from the device.

    Curvature takes a stream too (``laplace``, ``log_evidence``): it goes over the rows in their order, and an example
    that draws is then given the generator of its row, the same in every pass. These are read by threads alone.

    Memory: three windows on the device (the present one, the one before, the next), and on the host about
    ``2 * num_threads`` batches besides.

    Args:
        source: records with ``__len__`` and ``__getitem__``: :func:`tfds`, :func:`folder`, a ``tfds.data_source`` over
            array_record, a grain ``MapDataset``, a list.
        example: ``record -> (inputs, targets)``, pytrees of arrays for one example; or ``(record, rng) -> (inputs,
            targets)`` with a ``numpy.random.Generator`` of that example at that step, for a random crop at decoding.
            It runs in threads, so it must change nothing outside, and must compute nothing with JAX, since the program
            on the device may be waiting for it. uint8 pictures travel at a quarter of the cost of
            float32 ones: convert and augment with the ``transform`` of :func:`~bayestl.fit`.
        num_threads: threads that read and decode, in each process.
        num_workers: processes that read and decode; 0 for the training process itself. Worth it where decoding holds
            Python's lock. ``source`` and ``example`` are then pickled, and a script must start its work under ``if
            __name__ == "__main__":``.
        window_bytes: size of a window on the device; the batches in it are at least 1.

    Raises:
        ImportError: from a run, where grain is not installed.
        TypeError: a source without random access, an example that is not a pair or not numeric.
        ValueError: no records, examples of different shapes, NaN or infinite values; checked here on the first 64
            records, and on every other when it is read.

    Example:
        >>> records = [{"picture": np.full((8, 8), i, np.uint8), "label": i % 2} for i in range(10)]
        >>> data = btl.data.stream(records, lambda record: (record["picture"], record["label"]))
        >>> data.num_examples, data.batch(jax.random.key(0), step=0, batch_size=4).inputs.shape
        (10, (4, 8, 8))
    """
    check_arguments(stream, locals(), skip=("example", "window_bytes"))
    for name, value, least in (
        ("num_threads", num_threads, 1),
        ("num_workers", num_workers, 0),
        ("window_bytes", window_bytes, 1),
    ):
        if not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{name} is {value!r}; give a whole number, at least {least}")
    read = examples(source, example)
    data = StreamData(len(source), read, num_threads, num_workers, window_bytes)
    read.stack(range(min(len(source), _PROBE)), np.random.default_rng)
    return data
