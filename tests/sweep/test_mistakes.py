"""Mistakes that new users make: each ends in one sentence that says what to give instead."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import bayestl as btl

KEY = jax.random.key(0)
NET = btl.nets.from_function(lambda params, inputs: inputs @ params["w"], {"w": jnp.zeros(2)})
INPUTS, TARGETS = jnp.ones((4, 2)), jnp.zeros(4)
DATA = btl.data.arrays(INPUTS, TARGETS)


def _joint(likelihood: Any = None) -> btl.LogJoint:
    return btl.LogJoint(NET, likelihood or btl.likelihoods.normal(1.0), None, num_data=4)


def _fit(data: Any = DATA, **changes: Any) -> Any:
    settings = {"steps": 2, "batch_size": 2, "progress": False} | changes
    return btl.fit(KEY, btl.infer.map_estimate(_joint(), optax.sgd(0.1)), NET.params, data, **settings)


Sequential = type("Sequential", (), {"__module__": "keras.src.models"})
RESULT = btl.FitResult(btl.Point(NET.params), None, {}, 1, "finished", 0.0, 0.0)
ONE_OUTPUT = btl.nets.from_function(lambda params, inputs: inputs @ params["w"], {"w": jnp.zeros((2, 3))})
CLASSES = btl.LogJoint(ONE_OUTPUT, btl.likelihoods.categorical(), None, num_data=4)
CLASSIFY = btl.infer.map_estimate(CLASSES, optax.sgd(0.1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _fit((INPUTS, TARGETS)), r"^fit: data is a tuple; give bayestl\.data\.arrays\(inputs, targets\)$"),
        (lambda: _fit(None), r"^fit: data is None; give a data set: bayestl\.data\.arrays\(inputs, targets\), or"),
        (lambda: _fit(checkpoint="runs"), r"^fit: checkpoint is 'runs'; give bayestl\.Checkpoint\('runs'\)$"),
        (lambda: _fit(batch_size=1.5), r"^fit: batch_size is 1\.5; give a whole number or None$"),
        (lambda: _fit(validate=DATA, every=1.5), r"^every is 1\.5; give a whole number of steps"),
        (lambda: _fit(transform=lambda key, batch: tuple(batch)), r"^transform returned a tuple; return a Batch"),
        (
            lambda: _fit(transform=lambda key, batch: jax.tree.map(lambda x: x[1:], batch)),
            r"^transform returned arrays of shapes \[\(3, 2\), \(3,\)\] for 4 examples",
        ),
        (
            lambda: _fit(btl.data.arrays(jnp.ones((4, 3)), TARGETS)),
            r"^the network cannot be applied to inputs of shapes \[\(4, 3\)\] with parameters 'w' \(2,\): dot",
        ),
        (
            lambda: btl.fit(KEY, CLASSIFY, ONE_OUTPUT.params, DATA, steps=1, progress=False),
            r"^targets have dtype float32, but the likelihood is CategoricalLogits, which takes integers",
        ),
        (
            lambda: btl.LogJoint(Sequential(), btl.likelihoods.normal(1.0), None),
            r"^LogJoint: net is a Sequential; give a Net, bayestl\.nets\.from_keras\(model\)$",
        ),
        (
            lambda: btl.predict.monte_carlo(KEY, _joint(), RESULT),
            r"^monte_carlo: posterior is a FitResult; give its \.posterior$",
        ),
        (
            lambda: btl.infer.laplace(KEY, _joint(), RESULT, DATA),
            r"^laplace: params is a FitResult; give its \.params$",
        ),
    ],
)
def test_one_sentence(call: Any, message: str):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
