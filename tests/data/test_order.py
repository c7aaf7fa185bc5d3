"""The order of examples: a pure function of the key and the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import data

SIZES = [(10, 3, 17), (10, 10, 5), (7, 5, 12), (4, 1, 9), (12, 4, 10)]  # examples, batch size, steps


def made(num_examples: int) -> data.ArrayData:
    return data.arrays(np.zeros((num_examples, 1)), np.arange(num_examples))


def written_out(key: jax.Array, num_examples: int, batch_size: int, num_steps: int) -> np.ndarray:
    """The rule, one step at a time."""
    per_epoch = int(np.ceil(num_examples / batch_size))
    rows = []
    for step in range(num_steps):
        epoch, within = divmod(step, per_epoch)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), num_examples))
        rows.append(np.concatenate([order, order])[within * batch_size : (within + 1) * batch_size])
    return np.stack(rows)


@pytest.mark.parametrize(("num_examples", "batch_size", "num_steps"), SIZES)
def test_rows_follow_the_rule(num_examples, batch_size, num_steps):
    key = jax.random.key(7)
    rows = made(num_examples).indices(key, 0, num_steps, batch_size)
    assert rows.dtype == jnp.int32
    np.testing.assert_array_equal(rows, written_out(key, num_examples, batch_size, num_steps))


# The "rbg" generators give other numbers under vmap than without.
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize(("num_examples", "batch_size", "num_steps"), [(10, 3, 17), (10, 10, 5)])
def test_chunks_change_nothing(num_examples, batch_size, num_steps, impl):
    key, dataset = jax.random.key(5, impl=impl), made(num_examples)
    whole = np.asarray(dataset.indices(key, 0, num_steps, batch_size))
    indices = jax.jit(dataset.indices, static_argnums=(2, 3))
    for length in (1, 3):
        for start in range(num_steps - length + 1):
            part = indices(key, jnp.int32(start), length, batch_size)
            np.testing.assert_array_equal(part, whole[start : start + length])


def test_every_epoch_sees_every_example_and_epochs_differ():
    rows = np.asarray(made(12).indices(jax.random.key(0), 0, 9, 4)).reshape(3, 12)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(12), (3, 1)))
    assert len({tuple(row) for row in rows}) == 3


def test_the_last_batch_is_filled_from_the_start_of_its_own_epoch():
    rows = np.asarray(made(7).indices(jax.random.key(2), 0, 2, 5))
    np.testing.assert_array_equal(rows[1, 2:], rows[0, :3])


def test_keys_give_different_orders():
    one, other = (made(50).indices(jax.random.key(seed), 0, 1, 50) for seed in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("num_examples", "batch_size", "num_steps"), [*SIZES, (900, 32, 100), (30, 30, 100)])
def test_each_epoch_is_permuted_once(num_examples, batch_size, num_steps):
    """The loop over epochs has as many rounds as a chunk in the least favourable place touches epochs."""
    dataset = made(num_examples)
    jaxpr = jax.make_jaxpr(lambda key, step: dataset.indices(key, step, num_steps, batch_size))(jax.random.key(0), 0)
    lengths = [eqn.params["length"] for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    per_epoch = -(-num_examples // batch_size)
    touched = max(len({(start + s) // per_epoch for s in range(num_steps)}) for start in range(per_epoch))
    assert lengths == [touched]
    assert dataset.steps_per_epoch(batch_size) == per_epoch


def test_steps_are_numbered_from_zero():
    held = data.arrays(np.zeros((3, 1)), np.arange(3))
    read = data.stream([(np.zeros(1), i) for i in range(3)], lambda record: record)
    for examples in (held, read):
        with pytest.raises(ValueError, match="step is -1; steps of a run are numbered from 0"):
            examples.batch(jax.random.key(0), -1, 2)
