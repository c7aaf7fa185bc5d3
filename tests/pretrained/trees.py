"""A tree of arrays in every kind that checkpoints hold, and what a reader must find in it."""

from __future__ import annotations

import jax.numpy as jnp
import ml_dtypes
import numpy as np

TREE = {
    "params": {
        "Dense_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)},
        "layers": {"0": np.arange(2), "1": np.ones((1, 2), np.float16)},
    },
    "step": 7,
}
NAMES = ["params/Dense_0/bias", "params/Dense_0/kernel", "params/layers/0", "params/layers/1"]


def check(arrays):
    assert sorted(arrays) == NAMES
    np.testing.assert_array_equal(arrays["params/Dense_0/kernel"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["params/Dense_0/kernel"].dtype == np.float32
    assert arrays["params/Dense_0/bias"].dtype == ml_dtypes.bfloat16
    assert arrays["params/layers/0"].dtype == np.int64
    assert arrays["params/layers/1"].dtype == np.float16
    assert all(type(array) is np.ndarray for array in arrays.values())
