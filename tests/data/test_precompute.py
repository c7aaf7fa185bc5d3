"""Features computed once are what the function gives."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl


@pytest.mark.parametrize("num", [1, 7, 8, 9])
def test_equals_the_function_at_once(num):
    inputs = {"a": np.arange(num * 3.0).reshape(num, 3), "b": np.arange(num)}

    def function(x):
        return x["a"] * x["b"][:, None], (x["b"] + 1,)

    found = btl.data.precompute(function, inputs, batch_size=4)
    np.testing.assert_array_equal(found[0], inputs["a"] * inputs["b"][:, None])
    np.testing.assert_array_equal(found[1][0], inputs["b"] + 1)
    assert all(isinstance(x, np.ndarray) for x in (found[0], found[1][0]))


def test_data_sets_held_or_read():
    inputs = np.arange(14.0, dtype=np.float32).reshape(7, 2)
    rows = [(x, np.int32(0)) for x in inputs]
    held, read = btl.data.arrays(inputs, np.zeros(7, int)), btl.data.stream(rows, lambda row: row)
    for data in (held, read, held.resident()):
        features = btl.data.precompute(lambda x: x**2, data, batch_size=3)
        np.testing.assert_array_equal(features, inputs**2)


def test_one_program_sees_no_more_than_a_batch():
    seen = []

    def function(x):
        seen.append(x.shape)
        return x

    assert btl.data.precompute(function, jnp.ones((10, 2)), batch_size=4).shape == (10, 2)
    assert seen == [(4, 2)]


def test_bad_arguments():
    with pytest.raises(
        ValueError, match=r"inputs hold arrays of shapes \[\(2,\), \(3,\)\]; give one or more, all with the same"
    ):
        btl.data.precompute(lambda x: x, {"a": np.ones(2), "b": np.ones(3)})
    with pytest.raises(ValueError, match="inputs hold no example"):
        btl.data.precompute(lambda x: x, np.ones((0, 3)))
    with pytest.raises(ValueError, match="batch_size is 0; give at least 1"):
        btl.data.precompute(lambda x: x, np.ones(3), batch_size=0)
