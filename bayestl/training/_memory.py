"""How much of a device's memory a run will take, from the compiler's own plan, before anything is allocated."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from bayestl._arguments import check_arguments
from bayestl._data_size import sized
from bayestl._static import partition
from bayestl._types import Data, Inference, Key, Params
from bayestl.training._loop import Transform, check_run, split_key
from bayestl.training._single import Chunks, prepare


class MemoryEstimate(NamedTuple):
    """Bytes on each device during :func:`~bayestl.fit`. ``print`` shows a table.

    Attributes:
        method: what the method keeps: prior, likelihood, tempering.
        data: the data set, or three windows of a stream: the last two, and the one being read.
        start: the parameters that the run started from, which the caller holds.
        states: three copies of the method's state: the one being computed, and the starts of this chunk and of the
            previous one, to fall back on.
        scratch: what the compiled program itself needs: gradients, activations, updates.
        history: the infos of a chunk.
    """

    method: int
    data: int
    start: int
    states: int
    scratch: int
    history: int

    @property
    def total(self) -> int:
        """The sum, bytes."""
        return sum(self)

    def __str__(self) -> str:
        rows = [*self._asdict().items(), ("total", self.total)]
        return "\n".join(f"{name:<8} {value / 2**20:12,.1f} MiB" for name, value in rows)


def estimate_memory(
    inference: Inference,
    params: Params,
    data: Data,
    *,
    batch_size: int | None = None,
    transform: Transform | None = None,
    chunk_size: int = 100,
    sharding: NamedSharding | None = None,
) -> MemoryEstimate:
    """The memory that :func:`~bayestl.fit` will take with the same arguments; compiles its program and does not run it.

    ``total = method + data + start + 3 state + scratch + history``

    It does not include what a run allocates only temporarily: the copy of a checkpoint on its way to disk (one state,
    on the host), the construction of the prior (for rank k a second set of k columns), and the compiler itself.

    Args:
        inference: the method. Its arrays are not read; a log joint made by ``jax.eval_shape`` will do.
        params: where to start; shapes (``jax.eval_shape``) will do.
        data: the training data.
        batch_size: as for ``fit``.
        transform: as for ``fit``.
        chunk_size: as for ``fit``.
        sharding: as for ``fit``; the estimate is then per device, with parameters where they were placed.

    Raises:
        ValueError: a batch size, a chunk size or a sharding that does not fit.
        NotImplementedError: a backend whose compiler does not report it.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (100, 50, 2))
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=64)
        >>> data = btl.data.arrays(np.zeros((64, 100), np.float32), np.zeros(64, int))
        >>> inference = btl.infer.map_estimate(joint, optax.sgd(1e-2, momentum=0.9))
        >>> memory = btl.estimate_memory(inference, net.params, data)
        >>> size = 4 * btl.tree.size(net.params)
        >>> memory.start == size, memory.states // size, memory.method < 100
        (True, 6, True)
    """
    check_arguments(estimate_memory, locals(), skip=("chunk_size",))
    _, batch_size, capacity = check_run(data, sys.maxsize, batch_size, chunk_size)
    inference = sized(inference, data.num_examples)
    arrays, static_init = partition(inference.init)

    def init(key: Key, params: Params) -> Any:
        # Arrays are arguments, not constants, so their shapes are enough.
        return jax.eval_shape(lambda xs, key, params: static_init.combine(xs)(key, params), arrays, key, params)

    params = jax.tree.map(_shape, params)
    keys = split_key(jax.random.key(0))
    prepared = prepare(init, inference.step, keys, params, sharding, capacity, batch_size, transform)
    with data.open(keys.order, batch_size, capacity, sharding) as window:
        first = window(0)
        plan = Chunks(prepared, first).main.memory_analysis()
    if plan is None:
        raise NotImplementedError(f"the {jax.default_backend()} compiler does not report a program's memory")
    windows = 1 if isinstance(first, type(data)) else 3
    size = {"data": windows * _bytes(first), "state": _bytes(prepared.state), "method": _bytes(prepared.numbers)}
    return MemoryEstimate(
        method=size["method"],
        data=size["data"],
        start=_bytes(params),
        states=3 * size["state"],
        scratch=plan.temp_size_in_bytes,
        history=max(plan.output_size_in_bytes - size["state"], 0),
    )


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    x = x if hasattr(x, "dtype") else np.asarray(x)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))


def _bytes(tree: Any) -> int:
    """Bytes of the arrays on one device."""
    return sum(_leaf_bytes(x) for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))


def _leaf_bytes(x: Any) -> int:
    sharding = getattr(x, "sharding", None)
    shape = x.shape if sharding is None else sharding.shard_shape(x.shape)
    return math.prod(shape) * x.dtype.itemsize
