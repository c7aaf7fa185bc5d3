"""The order of examples on the host: that of the device, one epoch at a time."""

from __future__ import annotations

import contextlib
import threading
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from bayestl._types import Key
from bayestl.data import _order


class HostOrder(NamedTuple):
    """Which rows each step reads. Plain data, so that it can be sent to another process.

    Attributes:
        words: the numbers of the run's key.
        key_shape: their shape in the key.
        impl: name of the key's generator.
        batch_size: B.
        num_examples: N.
    """

    words: tuple[int, ...]
    key_shape: tuple[int, ...]
    impl: str
    batch_size: int
    num_examples: int

    def rows(self, step: int) -> Int[np.ndarray, " batch"]:
        """Rows of the batch at ``step``: those of :func:`bayestl.data._order.epoch_rows`, bit for bit."""
        epoch, within = divmod(step, _order.steps_per_epoch(self.num_examples, self.batch_size))
        with _lock:
            permutation = _permutation(self.words, self.key_shape, self.impl, epoch, self.num_examples)
        positions = within * self.batch_size + np.arange(self.batch_size)
        return permutation[positions % self.num_examples]

    def rng(self, step: int, position: int) -> np.random.Generator:
        """The generator of one example: a function of the key, the step and the position in the global batch."""
        return np.random.default_rng([*self.words, step, position])


def host_order(key: Key, batch_size: int, num_examples: int) -> HostOrder:
    """The order of a run."""
    data = np.asarray(jax.random.key_data(key))
    words = tuple(int(word) for word in data.ravel())
    return HostOrder(words, data.shape, str(jax.random.key_impl(key)), batch_size, num_examples)


# Threads that read ahead ask for a new epoch at the same moment; the lock lets one of them permute it.
_lock = threading.Lock()


@lru_cache(maxsize=4)
def _permutation(
    words: tuple[int, ...], key_shape: tuple[int, ...], impl: str, epoch: int, num_examples: int
) -> Int[np.ndarray, " examples"]:
    with on_host():
        data = jnp.asarray(words, jnp.uint32).reshape(key_shape)
        return np.asarray(_epoch(jax.random.wrap_key_data(data, impl=impl), epoch, num_examples=num_examples))


@partial(jax.jit, static_argnames="num_examples")
def _epoch(key: Key, epoch: int, num_examples: int) -> jax.Array:
    # As batches of all examples, step e holds the permutation of epoch e.
    return _order.epoch_rows(key, epoch, 1, num_examples, num_examples)[0]


def on_host() -> contextlib.AbstractContextManager:
    """Computation on the CPU, so that reading ahead does not queue behind the training program."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to use accelerators only
        return contextlib.nullcontext()
