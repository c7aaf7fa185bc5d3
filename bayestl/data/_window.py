"""The batches of some steps in a row, as the pytree that a compiled program takes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from bayestl._types import Batch, Inputs, Key, Targets


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StreamWindow:
    """S batches of a stream on the device.

    Attributes:
        inputs: pytree of arrays (S, B, ...).
        targets: pytree of arrays (S, B, ...).
        first: the step of the first batch.
    """

    inputs: Inputs
    targets: Targets
    first: Int[Array, ""]

    def indices(self, key: Key, step: int | Int[Array, ""], num_steps: int, batch_size: int) -> Int[Array, " steps"]:
        """Where in the window the batches of steps ``step, ..., step + num_steps - 1`` lie."""
        return step - self.first + jnp.arange(num_steps, dtype=jnp.int32)

    def gather(self, indices: Int[Array, ""]) -> Batch:
        """The batch at one place in the window."""

        def at(x: jax.Array) -> jax.Array:
            return jax.lax.dynamic_index_in_dim(x, indices, keepdims=False)

        return Batch(jax.tree.map(at, self.inputs), jax.tree.map(at, self.targets))


def local_positions(sharding: NamedSharding | None, batch_size: int) -> Int[np.ndarray, " local"]:
    """Positions in the global batch of the examples that this process's devices hold, sorted."""
    if sharding is None:
        return np.arange(batch_size)
    spans = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[span] for span in spans if span is not None]))


def place(
    inputs: Inputs, targets: Targets, first: int, batch_size: int, sharding: NamedSharding | None
) -> StreamWindow:
    """A window on the device from the arrays (S, local, ...) of this process, in one transfer."""
    host = (inputs, targets, np.asarray(first, np.int32))
    if sharding is None:
        return StreamWindow(*jax.device_put(host))
    along = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    if sharding.is_fully_addressable:
        return StreamWindow(*jax.device_put(host, (along, along, everywhere)))

    def whole(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(along, x, (x.shape[0], batch_size, *x.shape[2:]))

    here = jax.make_array_from_process_local_data(everywhere, host[2], ())
    return StreamWindow(jax.tree.map(whole, inputs), jax.tree.map(whole, targets), here)
