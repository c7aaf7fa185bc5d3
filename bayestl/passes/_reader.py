"""Batches of data that stay on the host, read when a compiled program asks for them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from bayestl._types import Data


class _Ahead(NamedTuple):
    """A batch that is being read before it is asked for."""

    number: int
    batch_size: int
    read: Future


class HostReader:
    """Reads a data set batch by batch for compiled programs, one batch ahead.

    A reader equals only itself and is a static part of a program; calls with the same data set share one reader. It
    does not keep the data set alive, because compiled programs are kept, and their readers with them.

    Attributes:
        num_examples: N.
        failure: the error of the last failed read, which XLA only quotes as text.
        check: ``(targets, rows=...)`` of what :meth:`traced` reads, raises on targets that do not fit; or None.
    """

    def __init__(self, data: Data):
        self.failure: Exception | None = None
        self.check: Callable[..., None] | None = None
        self._data = weakref.ref(data)
        self.num_examples = data.num_examples
        self._lock = threading.Lock()
        self._ahead: _Ahead | None = None

    def traced(self, number: jax.Array, batch_size: int, like: Any) -> Any:
        """:meth:`read` in a compiled program; ``like`` is a tree of examples (n, ...) with the shapes and dtypes."""
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), like)

        # Nothing may be computed with JAX in here: the program that waits for the result may occupy its only thread.
        def on_host(number: Any) -> Any:
            try:
                batch = self.read(int(number), batch_size)
                if self.check is not None:
                    rows = int(number) * batch_size + np.arange(batch_size)
                    self.check(batch[1], rows=np.minimum(rows, self.num_examples - 1))
            except Exception as error:
                self.failure = error
                raise
            return jax.tree.map(lambda x, s: np.asarray(x, s.dtype), batch, shapes)

        return jax.pure_callback(on_host, shapes, number, vmap_method="sequential")

    def read(self, number: int, batch_size: int) -> tuple[Any, Any]:
        """``(inputs, targets)`` of batch ``number``, numpy; the last one is filled up with copies of its last row."""
        with self._lock:
            ahead, self._ahead = self._ahead, None
        if ahead is not None and (ahead.number, ahead.batch_size) == (number, batch_size):
            batch = ahead.read.result()
        else:
            batch = self._filled(number, batch_size)
        if (number + 1) * batch_size < self.num_examples:
            pool = ThreadPoolExecutor(1, thread_name_prefix="bayestl-ahead")
            ahead = _Ahead(number + 1, batch_size, pool.submit(self._filled, number + 1, batch_size))
            pool.shutdown(wait=False)  # its thread ends with this batch
            with self._lock:
                self._ahead = ahead
        return batch

    def take(self, rows: np.ndarray) -> tuple[Any, Any]:
        """``(inputs, targets)`` of these rows, numpy."""
        data = self._data()
        if data is None:
            raise RuntimeError(
                "the data set that this program reads has been deleted; keep a reference to it while the program runs"
            )
        return data.rows(rows)

    def _filled(self, number: int, batch_size: int) -> tuple[Any, Any]:
        """A batch of full length: the last one repeats its last row."""
        first = number * batch_size
        rows = np.arange(first, min(first + batch_size, self.num_examples))
        positions = np.minimum(np.arange(batch_size), len(rows) - 1)
        batch = self.take(rows)
        return batch if len(rows) == batch_size else jax.tree.map(lambda x: x[positions], batch)


_READERS: weakref.WeakKeyDictionary[Any, HostReader] = weakref.WeakKeyDictionary()


def reader_of(data: Data) -> HostReader:
    """The reader of a data set, one for all calls, which lets them share their compiled programs."""
    return _READERS.setdefault(data, HostReader(data))
