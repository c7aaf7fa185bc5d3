"""A pass over data gives every example once, in order, as often as its weight says, held or read, whatever the size."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import passes

KEY = jax.random.key(0)
NUM = 11
INPUTS = np.random.default_rng(0).normal(size=(NUM, 2)).astype(np.float32)
TARGETS = np.arange(NUM)
WEIGHTS = np.array([2, 1, 0, 3, 1, 1, 0.5, 1, 0, 1, 4], np.float32)


def streamed() -> Any:
    return btl.data.stream([*zip(INPUTS, TARGETS, strict=True)], lambda record: record)


DATA = {
    "held": lambda: btl.data.arrays(INPUTS, TARGETS),
    "read": streamed,
    "batch": lambda: btl.Batch(jnp.asarray(INPUTS), jnp.asarray(TARGETS)),
    "passes": lambda: passes.batches(btl.data.arrays(INPUTS, TARGETS), 3),
}


@pytest.mark.parametrize("batch_size", [1, 4, NUM, NUM + 5, None])
@pytest.mark.parametrize("kind", DATA)
def test_every_example_once_and_in_order(kind, batch_size):
    data = DATA[kind]()
    batches = passes.batches(data, batch_size)
    every = list(batches)
    assert len(every) == batches.num_batches
    weights, inputs, targets = (
        np.concatenate([np.asarray(getattr(b, name)) for b in every]) for name in ("weights", "inputs", "targets")
    )
    np.testing.assert_array_equal(weights, np.arange(len(weights)) < NUM)
    np.testing.assert_array_equal(inputs[:NUM], INPUTS)
    np.testing.assert_array_equal(targets[:NUM], TARGETS)
    # Padding is a copy of an example, so that a network can be run on it.
    assert set(targets[NUM:]) <= set(TARGETS)
    assert float(batches.total_weight()) == NUM


@pytest.mark.parametrize("kind", ["held", "read"])
def test_sums_and_maps_in_a_program(kind):
    data = DATA[kind]()

    @jax.jit
    def program(batches):
        total = batches.sum(KEY, lambda key, batch: batch.weights @ batch.inputs)
        stored = batches.map(KEY, lambda key, batch: batch.targets)
        again = batches.sum(KEY, lambda key, batch, targets: jnp.sum(batch.weights * targets), stored)
        return total, stored, again

    batches = passes.batches(data, 4)
    total, stored, again = batches.run(program, batches)
    np.testing.assert_allclose(total, INPUTS.astype(np.float64).sum(0), rtol=1e-5)  # 11 float32 terms
    assert stored.shape == (3, 4)
    assert int(again) == TARGETS.sum()


def test_weights_count_and_what_has_none_is_never_looked_at():
    inputs = np.where(WEIGHTS[:, None] > 0, INPUTS, np.nan)
    batches = passes.batches(btl.Batch(jnp.asarray(inputs), jnp.asarray(TARGETS), jnp.asarray(WEIGHTS)), 4)
    total = batches.sum(KEY, lambda key, batch: batch.weights @ batch.inputs)
    np.testing.assert_allclose(total, WEIGHTS.astype(np.float64) @ INPUTS, rtol=1e-5)  # 11 float32 terms
    assert float(batches.total_weight()) == WEIGHTS.sum()


@pytest.mark.parametrize("kind", ["held", "read"])
def test_rows_in_any_order_without_padding(kind):
    data = DATA[kind]()
    rows = np.array([7, 0, 3])
    batch = passes.batches(data, 4).take(rows)
    np.testing.assert_array_equal(batch.inputs, INPUTS[rows])
    np.testing.assert_array_equal(batch.targets, TARGETS[rows])
    assert batch.weights is None


def test_the_whole_and_the_first():
    assert passes.first_examples(DATA["held"]()).targets.shape == (NUM,)
    long = btl.data.stream([(np.zeros(2), i) for i in range(70)], lambda record: record)
    assert passes.first_examples(long).targets.tolist() == list(range(64))
    assert passes.whole(DATA["passes"]()).targets.tolist() == TARGETS.tolist()
    with pytest.raises(TypeError, match=r"data is a StreamData, which does not hold its examples.*data\.arrays"):
        passes.whole(long)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            [1.0, -2.0, 1.0],
            r"weights has negative or non-finite values \(1 of 3\), the first -2\.0 in row 1; a weight",
        ),
        ([1.0, 1.0, np.nan], "the first nan in row 2"),
        ([np.inf, 1.0, 1.0], "the first inf in row 0"),
        ([0.0, 0.0, 0.0], "weights are 0 for all 3 examples"),
        ([1.0, 1.0], r"weights has shape \(2,\), but must have \(3,\)"),
    ],
)
def test_weights_that_no_rows_could_have(weights, message):
    batch = btl.Batch(jnp.zeros((3, 1)), jnp.zeros(3), jnp.array(weights))
    with pytest.raises(ValueError, match=message):
        passes.batches(batch, 2)


def test_what_cannot_be_passed_over():
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        passes.batches(DATA["held"](), 0)
    with pytest.raises(TypeError, match=r"data is a tuple, which neither holds .* give bayestl\.data\.arrays"):
        passes.batches((INPUTS, TARGETS), 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"leading axes of lengths \[3, 4\]"):
        passes.batches(btl.Batch(jnp.zeros((3, 1)), jnp.zeros(4)), 2)
    member = btl.data.arrays(INPUTS, TARGETS)
    with pytest.raises(ValueError, match=r"lengths \[2\], and there are 11 examples: .* one member at a time"):
        passes.batches(btl.data.stack([member, member]), 2)


def test_one_device_of_a_mesh():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    for kind in ("held", "read"):
        data = DATA[kind]()
        batches = passes.batches(data, 4, sharding=sharding)
        total = jax.jit(lambda b: b.sum(KEY, lambda key, batch: batch.weights @ batch.inputs))(batches)
        np.testing.assert_allclose(total, INPUTS.astype(np.float64).sum(0), rtol=1e-5)  # 11 float32 terms
        assert next(iter(batches)).inputs.sharding.mesh == mesh
    with pytest.raises(TypeError, match="sharding is a str; give how a batch lies on a mesh"):
        passes.batches(DATA["held"](), 4, sharding="data")  # pyright: ignore[reportArgumentType]
