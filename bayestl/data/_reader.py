"""Windows of a stream, read ahead in the background while the device computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from bayestl.data._examples import Examples
from bayestl.data._host_order import HostOrder
from bayestl.data._window import StreamWindow, local_positions, place

_CLOSED = "the stream was closed"


@dataclasses.dataclass(eq=False)
class Steps:
    """A stream as the sequence that grain reads; item i is this process's part of batch ``first + i``.

    Attributes:
        examples: what is read.
        order: which rows each step reads.
        positions: this process's positions in a batch.
        first: the step of item 0.
        stopped: whether items are no longer needed; threads then end after their current item.
    """

    examples: Examples
    order: HostOrder
    positions: np.ndarray
    first: int
    stopped: bool = False

    def __len__(self) -> int:
        return np.iinfo(np.int32).max - self.first

    def __getitem__(self, index: int) -> list[np.ndarray]:
        if self.stopped:
            raise RuntimeError(_CLOSED)
        step = self.first + int(index)
        rows = self.order.rows(step)[self.positions]
        return self.examples.stack(rows, lambda i: self.order.rng(step, int(self.positions[i])))


class Reader:
    """Windows of ``num_steps`` batches for one run. The next is read while the present one is in use.

    Args:
        examples: what is read.
        order: which rows each step reads.
        num_steps: batches in a window, S.
        sharding: how one batch lies on a mesh, or None.
        num_threads: threads that read and decode, in each process.
        num_workers: processes that read and decode; 0 for this one.
        check: of the targets of every window, with their rows; see :meth:`StreamData.open`.
    """

    def __init__(
        self,
        examples: Examples,
        order: HostOrder,
        num_steps: int,
        sharding: NamedSharding | None,
        num_threads: int,
        num_workers: int,
        check: Callable[..., None] | None = None,
    ):
        self._examples, self._order, self._num_steps, self._sharding = examples, order, num_steps, sharding
        self._threads, self._workers = num_threads, num_workers
        self._check = check
        self._positions = local_positions(sharding, order.batch_size)
        # What the caller set with jax.default_device holds for the caller's thread alone.
        self._device = next(iter(jax.device_put(0).devices()))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bayestl-stream")
        self._kept: dict[int, StreamWindow] = {}
        self._reading: Any = None
        self._ahead: dict[int, Future] = {}

    def window(self, start: int) -> StreamWindow:
        """The batches of steps ``start, ..., start + num_steps - 1``.

        Raises:
            ValueError: an example could not be read.
        """
        if start not in self._kept:
            if start not in self._ahead:
                self._start_at(start)
            try:
                window = self._ahead[start].result()
            except Exception:
                self._stop()
                raise
            following = start + self._num_steps
            self._ahead = {following: self._pool.submit(self._next, following, self._reading)}
            # A run that meets a NaN goes back at most to the window before.
            self._kept = dict([*self._kept.items()][-1:]) | {start: window}
        return self._kept[start]

    def close(self) -> None:
        """Stop reading; threads and processes end with what they have in hand."""
        self._stop()
        self._pool.shutdown()
        self._kept = {}

    def _start_at(self, start: int) -> None:
        self._stop()
        steps = Steps(self._examples, self._order, self._positions, start)
        self._reading = _Reading(steps, _batches(steps, self._threads, self._workers))
        self._ahead = {start: self._pool.submit(self._next, start, self._reading)}

    def _stop(self) -> None:
        if self._reading is not None:
            self._reading.steps.stopped = True
            wait(self._ahead.values())
            self._reading.batches.close()
        self._reading, self._ahead = None, {}

    def _next(self, start: int, reading: _Reading) -> StreamWindow:
        """The next window on the device; runs in the background."""
        read = []
        while len(read) < self._num_steps:
            if reading.steps.stopped:
                raise RuntimeError(_CLOSED)
            read.append(next(reading.batches))
        inputs, targets = self._examples.tree([np.stack(parts) for parts in zip(*read, strict=True)])
        if self._check is not None:
            rows = [self._order.rows(step)[self._positions] for step in range(start, start + self._num_steps)]
            self._check(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), targets), rows=np.concatenate(rows))
        with jax.default_device(self._device):
            return place(inputs, targets, start, self._order.batch_size, self._sharding)


class _Reading(NamedTuple):
    """One pass over the steps from some first one, and grain's iterator over it."""

    steps: Steps
    batches: Any


def _batches(steps: Steps, num_threads: int, num_workers: int) -> Any:
    """Batches of a stream in order, decoded by threads, in this process or in others."""
    try:
        import grain
    except ImportError as error:
        raise ImportError('streams are read by grain: pip install "bayestl[data]", or pip install grain') from error
    from absl import flags

    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    batches = grain.MapDataset.source(steps).to_iter_dataset(options)
    if num_workers:
        if not flags.FLAGS.is_parsed():  # grain reads its own settings from there, and refuses before that
            flags.FLAGS.mark_as_parsed()
        workers = grain.multiprocessing.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(workers, worker_init_fn=_leave_the_accelerator)
    return iter(batches)


def _leave_the_accelerator(worker: int, num_workers: int) -> None:
    """Keep a reading process from taking the memory of the device that trains."""
    jax.config.update("jax_platforms", "cpu")
