"""A data set on the device: what it keeps, what it hands out, what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import data


@pytest.fixture
def small() -> data.ArrayData:
    return data.arrays(np.arange(12, dtype=np.uint8).reshape(6, 2), np.arange(6))


def test_dtypes_and_values_are_kept():
    pictures = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
    made = data.arrays({"picture": pictures, "age": np.array([1.5, 2.5, 3.5])}, np.array([2, 0, 1]))
    assert made.num_examples == 3
    assert made.num_members is None
    assert made.inputs["picture"].dtype == jnp.uint8
    assert made.inputs["age"].dtype == jnp.float32
    assert made.targets.dtype == jnp.int32
    np.testing.assert_array_equal(made.inputs["picture"], pictures)


@pytest.mark.x64
def test_x64_keeps_float64():
    made = data.arrays(np.array([[0.1]]), np.array([0]))
    assert made.inputs.dtype == jnp.float64
    assert made.inputs[0, 0] == 0.1


def test_gather_gives_the_rows_of_every_leaf():
    inputs = {"a": np.arange(10.0), "b": np.arange(20).reshape(10, 2)}
    batch = data.arrays(inputs, np.arange(10) * 7).gather(jnp.array([3, 3, 9]))
    np.testing.assert_array_equal(batch.inputs["a"], [3, 3, 9])
    np.testing.assert_array_equal(batch.inputs["b"], [[6, 7], [6, 7], [18, 19]])
    np.testing.assert_array_equal(batch.targets, [21, 21, 63])
    assert batch.weights is None


def test_batch_pairs_inputs_with_their_targets_and_follows_indices(small):
    key = jax.random.key(3)
    for step in range(5):
        batch = small.batch(key, step, 4)
        np.testing.assert_array_equal(batch.inputs[:, 0], 2 * np.asarray(batch.targets))
        np.testing.assert_array_equal(batch.targets, small.indices(key, step, 1, 4)[0])


def test_passes_through_jit_and_vmap_as_a_pytree(small):
    @jax.jit
    def total(data, key):
        return data.batch(key, 0, data.num_examples).targets.sum()

    assert total(small, jax.random.key(0)) == 15
    keys = jax.random.split(jax.random.key(0), 4)
    np.testing.assert_array_equal(jax.vmap(total, in_axes=(None, 0))(small, keys), [15] * 4)


@pytest.mark.parametrize("rows", [[5, 0, 5], np.array([5, 0, 5]), jnp.array([5, 0, 5])])
def test_take(small, rows):
    part = small.take(rows)
    assert part.num_examples == 3
    assert part.num_members is None
    np.testing.assert_array_equal(part.targets, [5, 0, 5])
    np.testing.assert_array_equal(part.inputs[:, 1], [11, 1, 11])


def test_take_works_on_traced_rows(small):
    taken = jax.jit(lambda data, rows: data.take(rows))(small, jnp.array([2, 4]))
    assert taken.num_examples == 2
    np.testing.assert_array_equal(taken.targets, [2, 4])


@pytest.mark.parametrize("num_members", [3, 6])  # 6 members of 6 examples: the leading axis alone cannot tell
def test_stacked_sets_are_ordinary_inside_vmap(small, num_members):
    members = [small.take((np.arange(6) + m) % 6) for m in range(num_members)]
    stacked = data.stack(members)
    assert (stacked.num_members, stacked.num_examples) == (num_members, 6)
    assert stacked.steps_per_epoch(4) == 2
    key = jax.random.key(1)
    seen = []

    def member_batch(member):
        seen.append((member.num_members, member.num_examples))
        return member.batch(key, 1, 4)

    batches = jax.vmap(member_batch)(stacked)
    assert seen == [(None, 6)]
    for m, member in enumerate(members):
        np.testing.assert_array_equal(batches.targets[m], member.batch(key, 1, 4).targets)
    with pytest.raises(ValueError, match=f"stacked, one for each of {num_members} members; gather from it inside"):
        stacked.batch(key, 0, 2)


# ---------------------------------------------------------------- refusals


def test_empty_data():
    with pytest.raises(ValueError, match="inputs has 0 rows: the data set is empty"):
        data.arrays(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ValueError, match="targets holds no arrays; give an array"):
        data.arrays(np.zeros((2, 3)), {})


def test_lengths_that_differ():
    with pytest.raises(ValueError, match=r"inputs at 'left/x' has 4 rows and targets has 3; every array"):
        data.arrays({"left": {"x": np.zeros((4, 2))}}, np.zeros(3))
    with pytest.raises(ValueError, match=r"inputs at 'a' has 4 rows and inputs at 'b' has 5"):
        data.arrays({"a": np.zeros(4), "b": np.zeros(5)}, np.zeros(4))


def test_dtypes_that_are_not_numbers():
    with pytest.raises(TypeError, match=r"targets has dtype <U3; a data set holds numbers.*np\.unique"):
        data.arrays(np.zeros((2, 1)), np.array(["cat", "dog"]))
    with pytest.raises(TypeError, match="inputs at 'x' has dtype object"):
        data.arrays({"x": np.array([[1], [2, 3]], dtype=object)}, np.zeros(2))
    with pytest.raises(TypeError, match=r"inputs has dtype key<fry>"):
        data.arrays(jax.random.split(jax.random.key(0), 2), np.zeros(2))


def test_lists_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"inputs at '0/0' is a single number without an axis.*np.asarray"):
        data.arrays([[1.0], [2.0]], np.zeros(2))


def test_non_finite_values():
    inputs = np.zeros((5, 3))
    inputs[3, 1], inputs[4, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="inputs at 'x' has 2 NaN or infinite of 15 values, the first in row 3"):
        data.arrays({"x": inputs}, np.zeros(5))
    with pytest.raises(ValueError, match="targets has 1 NaN or infinite of 2 values, the first in row 1"):
        data.arrays(np.zeros((2, 3)), np.array([0.0, np.nan]))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_numbers_that_jax_would_change():
    with pytest.raises(ValueError, match=r"targets has integers that do not fit int32.*from 0 to 1099511627776"):
        data.arrays(np.zeros((2, 1)), np.array([0, 2**40]))
    with pytest.raises(ValueError, match="1 NaN or infinite of 2 values, the first in row 0; as float32"):
        data.arrays(np.array([1e300, 0.0]), np.zeros(2))


def test_nothing_is_checked_while_tracing():
    made = jax.jit(lambda x: data.arrays(x, jnp.zeros(2)))(jnp.array([jnp.nan, 1.0]))
    assert made.num_examples == 2


@pytest.mark.parametrize("batch_size", [0, 7])
def test_batch_size_out_of_range(small, batch_size):
    with pytest.raises(ValueError, match=f"batch_size {batch_size} is not between 1 and the 6 examples.*batch_size=6"):
        small.check_batch_size(batch_size)
    small.check_batch_size(1)
    small.check_batch_size(6)


def test_take_refuses_rows_it_does_not_have(small):
    with pytest.raises(ValueError, match=r"rows run from 0 to 6; they must lie in 0, ..., 5"):
        small.take([0, 6])
    with pytest.raises(ValueError, match=r"rows run from -1 to 2"):
        small.take([-1, 2])
    with pytest.raises(ValueError, match=r"rows has shape \(0,\); give at least one"):
        small.take([])
    with pytest.raises(TypeError, match=r"rows has dtype bool; .*np.flatnonzero"):
        small.take(np.ones(6, bool))


def test_stack_refuses_members_that_differ(small):
    with pytest.raises(ValueError, match="needs at least one data set"):
        data.stack([])
    with pytest.raises(ValueError, match="member 1 has 2 examples and member 0 has 6"):
        data.stack([small, small.take([0, 1])])
    with pytest.raises(ValueError, match=r"member 1 and member 0 differ in structure, shape or dtype.*float32"):
        data.stack([small, data.arrays(np.zeros((6, 2)), np.arange(6))])
    with pytest.raises(ValueError, match="member 0 is itself stacked"):
        data.stack([data.stack([small, small])])
