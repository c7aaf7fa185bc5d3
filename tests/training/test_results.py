"""Results as one line, and in files."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl

PARAMS = {"w": jnp.zeros(200)}


def _network(params: Any, inputs: jax.Array) -> jax.Array:
    return inputs @ params["w"]


NET = btl.nets.from_function(_network, PARAMS)
JOINT = btl.LogJoint(NET, btl.likelihoods.normal(1.0), btl.gaussians.isotropic(PARAMS, 1.0), num_data=30)
DATA = btl.data.arrays(np.ones((30, 200), np.float32), np.ones(30, np.float32))
OPTIONS: Any = {"steps": 4, "batch_size": 10, "progress": False}


def test_a_result_is_one_line_and_one_file(tmp_path):
    result = btl.fit(jax.random.key(0), btl.infer.map_estimate(JOINT, optax.sgd(1e-3)), PARAMS, DATA, **OPTIONS)
    text = repr(result)
    assert text.startswith("FitResult(Point, 4 steps, 'finished', objective ")
    assert len(text.splitlines()) == 1
    result.save(tmp_path / "run", settings={"rate": 1e-3})
    loaded = btl.load(tmp_path / "run", NET)
    np.testing.assert_array_equal(loaded.params["w"], result.params["w"])
    assert (loaded.settings["steps"], loaded.settings["stopped"], loaded.settings["rate"]) == (4, "finished", 1e-3)


def test_many_results_networks_and_data_are_one_line_each():
    result = btl.fit_many(
        jax.random.split(jax.random.key(0), 3),
        lambda rate: btl.infer.map_estimate(JOINT, optax.sgd(rate)),
        jnp.array([1e-3, 2e-3, 3e-3]),
        PARAMS,
        DATA,
        **OPTIONS,
    )
    assert repr(result).startswith("ManyResult(3 members, Point each, 4 steps, 'finished', ")
    assert repr(NET) == "Net(200 parameters in 1 arrays, a state of 0 arrays)"
    assert repr(DATA) == "ArrayData(30 examples, inputs float32 (200,), targets float32 ())"
    stacked = btl.data.stack([DATA, DATA])
    assert repr(stacked) == "ArrayData(2 members, 30 examples, inputs float32 (200,), targets float32 ())"


def test_a_log_joint_of_a_function_of_a_module_can_be_pickled():
    again = pickle.loads(pickle.dumps(JOINT))
    batch = btl.Batch(DATA.inputs, DATA.targets)
    np.testing.assert_array_equal(again(PARAMS, batch), JOINT(PARAMS, batch))
