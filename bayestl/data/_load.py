"""A source read once, as a data set on the device."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from bayestl._arguments import check_arguments, check_at_least
from bayestl.data._arrays import ArrayData, arrays
from bayestl.data._examples import Examples, examples

_CHUNK = 64


def load(source: Any, example: Callable[[Any], Any], *, num_threads: int = 8) -> ArrayData:
    """All examples of a source, read once and kept on the device.

    The fastest way to train on what fits: N times the bytes of one example, besides the parameters. Keep pictures as
    uint8, and convert and augment them with the ``transform`` of :func:`~bayestl.fit`.

    Args:
        source: records with ``__len__`` and ``__getitem__``, as for :func:`stream`.
        example: ``record -> (inputs, targets)``, pytrees of arrays for one example.
        num_threads: threads that read and decode.

    Raises:
        TypeError, ValueError: as in :func:`stream`; an ``example`` that draws random numbers.
        MemoryError: more than the device holds.

    Example:
        >>> records = [{"picture": np.full((8, 8), i, np.uint8), "label": i % 2} for i in range(10)]
        >>> data = btl.data.load(records, lambda record: (record["picture"], record["label"]))
        >>> data.inputs.shape, data.inputs.dtype.name
        ((10, 8, 8), 'uint8')
    """
    check_arguments(load, locals())
    check_at_least(1, num_threads=num_threads)
    read = examples(source, example)
    if read.takes_rng:
        raise ValueError(
            "example asks for a random generator, and here every record is decoded once for all steps; augment with "
            "the transform of fit, or use data.stream"
        )
    _check_memory(read, len(source))
    starts = range(0, len(source), _CHUNK)
    stacked = [np.empty((len(source), *leaf.shape), leaf.dtype) for leaf in read.leaves]

    def fill(start: int) -> None:
        rows = range(start, min(start + _CHUNK, len(source)))
        for whole, part in zip(stacked, read.stack(rows, np.random.default_rng), strict=True):
            whole[start : start + len(part)] = part

    with ThreadPoolExecutor(num_threads) as pool:
        chunks = [pool.submit(fill, start) for start in starts]
        try:
            for chunk in chunks:
                chunk.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return arrays(*read.tree(stacked))


def _check_memory(read: Examples, num_examples: int) -> None:
    """Refuse a data set that is larger than the device, where the device tells its size."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    needed = num_examples * read.bytes
    if limit is not None and needed > limit:
        raise MemoryError(
            f"{num_examples} examples of {read.bytes} bytes are {needed / 2**30:.1f} GiB, and the device holds "
            f"{limit / 2**30:.1f} GiB; use data.stream, smaller pictures, or uint8"
        )
