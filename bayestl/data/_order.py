"""The order in which examples are seen: a pure function of the key and the step, so that a run can resume anywhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from bayestl import _tree
from bayestl._types import Key


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Batches it takes to see every example: ``ceil(num_examples / batch_size)``."""
    return -(-num_examples // batch_size)


def check_batch_size(batch_size: int, num_examples: int, where: str) -> None:
    """Refuse a batch that ``num_examples`` examples cannot fill; ``where`` says of what."""
    if not 1 <= batch_size <= num_examples:
        raise ValueError(
            f"batch_size {batch_size} is not between 1 and the {num_examples} examples of the {where}; "
            f"give at most batch_size={num_examples}, which uses all examples in every step"
        )


def check_step(step: int | Int[Array, ""]) -> None:
    """Refuse a step before the first one, which would wrap around to another epoch; a traced one is let through."""
    if _tree.is_concrete(step) and int(step) < 0:
        raise ValueError(f"step is {int(step)}; steps of a run are numbered from 0")


def epoch_rows(
    key: Key, step: int | Int[Array, ""], num_steps: int, batch_size: int, num_examples: int
) -> Int[Array, "steps batch"]:
    """Rows of the batches at ``step, ..., step + num_steps - 1``.

    Epoch e sees the examples in the order ``permutation(fold_in(key, e))``; its last batch is filled up from the start
    of the same permutation.
    """
    per_epoch = steps_per_epoch(num_examples, batch_size)
    steps = jnp.asarray(step, jnp.int32) + jnp.arange(num_steps, dtype=jnp.int32)
    first_epoch = steps[0] // per_epoch
    # A chunk that starts on the last batch of an epoch touches the most epochs.
    epochs = first_epoch + jnp.arange((num_steps - 2) // per_epoch + 2, dtype=jnp.int32)
    # A loop and not a vmap: under vmap the "rbg" generators give an epoch another order in another chunk.
    orders = jax.lax.map(lambda epoch: jax.random.permutation(jax.random.fold_in(key, epoch), num_examples), epochs)
    in_epoch = (steps % per_epoch)[:, None] * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return orders[(steps // per_epoch - first_epoch)[:, None], in_epoch % num_examples].astype(jnp.int32)
