"""Equinox modules as networks: without state, with noise per example, with either kind of batch normalisation."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import nets, tree

eqx = pytest.importorskip("equinox")

INPUTS = jax.random.normal(jax.random.key(9), (6, 3))
KEY = jax.random.key(1)


def applied(net, key, inputs=INPUTS):
    return net.apply(net.params, net.state, inputs, key)


def perceptron(seed=0, width=8):
    return eqx.nn.MLP(3, 2, width, 2, key=jax.random.key(seed))


def test_a_module_without_state():
    module = perceptron()
    net = nets.from_equinox(module)
    assert net.state == ()
    assert nets.state_policy(net) == "none"
    assert nets.trained_state(net) is net
    for key in (None, KEY):
        outputs, state = applied(net, key)
        np.testing.assert_allclose(outputs, jax.vmap(module)(INPUTS), rtol=1e-5, atol=1e-6)  # sums of eight terms
        assert state == ()
    assert tree.paths(net.params)[:2] == ["layers/0/weight", "layers/0/bias"]
    assert tree.size(tree.select(net.params, "layers/2/**")) == 8 * 2 + 2


class _SharedBias(eqx.Module):
    shared: eqx.nn.Shared

    def __call__(self, x):
        return self.shared()(x)


def test_one_array_in_two_places_is_refused_and_a_shared_one_counts_once():
    module, places = perceptron(), (lambda net: net.layers[1].bias, lambda net: net.layers[0].bias)
    tied = eqx.tree_at(places[0], module, places[1](module))
    with pytest.raises(ValueError, match=r"one array at 'layers/0/bias' and 'layers/1/bias'.*use eqx\.nn\.Shared"):
        nets.from_equinox(tied)
    net = nets.from_equinox(_SharedBias(eqx.nn.Shared(module, *places)))
    assert tree.size(net.params) == tree.size(nets.from_equinox(module).params) - 8
    np.testing.assert_allclose(net(net.params, INPUTS), jax.vmap(tied)(INPUTS), rtol=1e-5, atol=1e-6)


def test_a_net_made_again_does_not_compile_again():
    traces = []

    @jax.jit
    def step(net):
        traces.append(1)
        return net(net.params, INPUTS)

    step(nets.from_equinox(perceptron()))
    step(nets.from_equinox(perceptron(seed=1)))
    assert len(traces) == 1
    step(nets.from_equinox(perceptron(width=4)))
    assert len(traces) == 2


class Pair(eqx.Module):
    """Two dropouts, constants that are no parameters, a pytree as input, a key without default."""

    scale: jax.Array
    index: jax.Array
    left: Any
    right: Any

    def __init__(self):
        self.scale, self.index = jnp.ones(()), jnp.array([0])
        self.left, self.right = eqx.nn.Dropout(0.5), eqx.nn.Dropout(0.5, inference=True)

    def __call__(self, inputs, *, key):
        keys = (None, None) if key is None else jax.random.split(key)
        x = self.scale * inputs["x"]
        return self.left(x, key=keys[0]), self.right(x, key=keys[1])[self.index]


def test_noise_by_example_and_key():
    net = nets.from_equinox(Pair())
    assert tree.paths(net.params) == ["scale"]
    inputs = {"x": jnp.ones((100, 100))}
    (left, right), _ = applied(net, KEY, inputs)
    assert left.shape == (100, 100)
    assert right.shape == (100, 1)
    assert set(np.unique(left)) == {0.0, 2.0}
    assert abs(float(left.mean()) - 1) < 0.05  # five standard errors: 5 / sqrt(10000)
    assert abs(float((left[0] == left[1]).mean()) - 0.5) < 0.25  # five standard errors: 5 x 0.5 / sqrt(100)
    assert set(np.unique(right)) == {0.0, 2.0}  # in training mode, whatever the module's own
    np.testing.assert_array_equal(left, applied(net, KEY, inputs)[0][0])
    assert not np.array_equal(left, applied(net, jax.random.key(2), inputs)[0][0])
    np.testing.assert_array_equal(applied(net, None, inputs)[0][0], inputs["x"])


class Averaging(eqx.Module):
    """Batch normalisation by moving averages, on an axis of another name."""

    norm: Any

    def __init__(self):
        self.norm = eqx.nn.BatchNorm(3, "examples", momentum=0.5, mode="ema")

    def __call__(self, x, state):
        return self.norm(x, state)


def test_moving_averages_frozen_trained_and_estimated_anew():
    module, state = eqx.nn.make_with_state(Averaging)()
    net = nets.from_equinox(module, state, axis_name="examples")
    assert nets.state_policy(net) == "frozen"
    outputs, same = applied(net, KEY)
    np.testing.assert_array_equal(outputs, applied(net, None)[0])
    jax.tree.map(np.testing.assert_array_equal, same, net.state)
    mean, var = np.asarray(INPUTS, float).mean(0), np.asarray(INPUTS, float).var(0)
    trained = nets.trained_state(net)
    _, first = applied(trained, KEY)
    _, second = trained.apply(net.params, first, INPUTS + 1, KEY)
    np.testing.assert_allclose(second.get(module.norm.ema_state_index)[0], mean + 0.5, rtol=1e-5, atol=1e-6)
    data = btl.data.arrays(INPUTS, jnp.zeros(6))
    for start in (net.state, second):  # never used before, and used
        start_net = nets.Net(net.params, start, net.apply)
        again = nets.reestimate_state(KEY, start_net, net.params, data, batch_size=6)
        np.testing.assert_allclose(again.get(module.norm.ema_state_index)[0], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(again.get(module.norm.ema_state_index)[1], var, rtol=1e-5, atol=1e-6)
        outputs, _ = net.apply(net.params, again, INPUTS, None)
        np.testing.assert_allclose(outputs, (INPUTS - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-5)


def test_the_wrong_name_of_the_axis():
    net = nets.trained_state(nets.from_equinox(*eqx.nn.make_with_state(Averaging)()))
    with pytest.raises(NameError, match="examples"):
        applied(net, KEY)


def test_refusals(monkeypatch):
    module, state = eqx.nn.make_with_state(Averaging)()
    with pytest.raises(TypeError, match=r"module is dict; give an eqx\.Module that can be called on one example"):
        nets.from_equinox({})
    with pytest.raises(ValueError, match=r"module keeps state in 2 places, and state is None; make both together: fro"):
        nets.from_equinox(module)
    with pytest.raises(ValueError, match=r"module still holds its state; make it with eqx\.nn\.make_with_state"):
        nets.from_equinox(Averaging(), state)
    with pytest.raises(
        TypeError, match=r"state is dict; give the eqx\.nn\.State that eqx\.nn\.make_with_state returned"
    ):
        nets.from_equinox(module, {})
    with pytest.raises(ValueError, match="params holds no parameters"):
        nets.from_equinox(eqx.nn.Identity())
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(ImportError, match="from_equinox needs Equinox: pip install equinox"):
        nets.from_equinox(module)
