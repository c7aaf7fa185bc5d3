"""Keras models as networks: whole applications, frozen bodies, new heads, noise, refusals."""

from __future__ import annotations

import functools
import os
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import nets, tree

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "jax":
    pytest.skip("Keras was imported on another backend", allow_module_level=True)

INPUTS = jax.random.normal(jax.random.key(9), (6, 3))
KEY = jax.random.key(1)
layers = keras.layers


def applied(net, key, inputs=INPUTS):
    return net.apply(net.params, net.state, inputs, key)


@functools.cache
def mobile_net():
    """The body of the original recipe's kind, with a new head."""
    body = keras.applications.MobileNet(
        weights=None, include_top=False, pooling="avg", input_shape=(96, 96, 3), alpha=0.25
    )
    model = keras.Sequential([body, layers.Dropout(0.5), layers.Dense(1, name="head"), layers.Reshape(())])
    return body, model, nets.from_keras(model)


def test_an_application_goes_into_a_log_joint():
    _, model, net = mobile_net()
    pictures = jax.random.uniform(KEY, (2, 96, 96, 3))
    batch = btl.Batch(pictures, jnp.array([0, 1]))
    # Untrained running statistics let the signal die in 28 layers.
    joint = btl.LogJoint(nets.trained_state(net), btl.likelihoods.bernoulli(), None, num_data=2)

    @jax.jit
    def value_and_gradient(params, key):
        return jax.value_and_grad(lambda p: joint(p, batch, key=key))(params)

    value, gradient = value_and_gradient(net.params, KEY)
    assert np.isfinite(value)
    assert jax.tree.structure(gradient) == jax.tree.structure(net.params)
    assert [path for path, x in tree.by_paths(gradient).items() if not np.abs(x).max() > 0] == []
    outputs = jax.jit(lambda p: applied(net, None, pictures)[0])(net.params)
    # 28 layers in float32, one program against one operation after another.
    np.testing.assert_allclose(outputs, model(pictures, training=False), rtol=1e-4, atol=1e-5)


def test_paths_are_those_of_the_layers():
    body, model, net = mobile_net()
    assert tree.paths(tree.select(net.params, "head/**")) == ["head/bias", "head/kernel"]
    assert tree.size(net.params) == sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert tree.paths(tree.select(net.state, "conv1_bn/**")) == ["conv1_bn/moving_mean", "conv1_bn/moving_variance"]
    assert not any("seed" in path for path in tree.paths(net.state))
    match = btl.sources.match(nets.from_keras(body).params, net.params, new=["head/**"])
    assert jax.tree.structure(match.params) == jax.tree.structure(net.params)


def test_a_frozen_body_is_no_parameter():
    body = keras.Sequential([layers.Input((3,)), layers.Dense(4), layers.BatchNormalization(momentum=0.5)])
    body.trainable = False
    model = keras.Sequential([body, layers.Dense(2, name="head")])
    net = nets.from_keras(model)
    assert tree.paths(net.params) == ["head/bias", "head/kernel"]
    assert len(jax.tree.leaves(net.state)) == 6
    # Keras leaves a frozen layer's statistics alone also in training.
    _, state = applied(nets.trained_state(net), KEY)
    jax.tree.map(np.testing.assert_array_equal, state, net.state)
    # They can still be estimated anew.
    data = btl.data.arrays(INPUTS, jnp.zeros(6))
    state = nets.reestimate_state(KEY, net, net.params, data, batch_size=6)
    found, kernel = tree.by_paths(state), np.asarray(body.layers[0].kernel.value)
    (mean,) = (x for path, x in found.items() if path.endswith("moving_mean"))
    np.testing.assert_allclose(mean, np.asarray(INPUTS).mean(0) @ kernel, rtol=1e-5, atol=1e-6)  # six float32 terms
    assert body.trainable is False
    assert [v.trainable for v in body.variables] == [False] * 6


def test_a_model_frozen_later_keeps_its_network():
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, name="body"), layers.Dense(2, name="head")])
    net = nets.from_keras(model)
    before = applied(net, None)[0]
    model.layers[0].trainable = False
    np.testing.assert_array_equal(applied(net, None)[0], before)
    gradient = jax.grad(lambda p: net.apply(p, net.state, INPUTS, KEY)[0].sum())(net.params)
    assert np.abs(gradient["body"]["kernel"]).max() > 0


def test_layers_have_noise_of_their_own_that_keeps_the_mean():
    inputs = layers.Input((100,))
    scaled = layers.Rescaling(1.0)(inputs)
    model = keras.Model(inputs, [layers.Dropout(0.5)(scaled), layers.Dropout(0.5)(scaled), layers.Dense(1)(inputs)])
    net = nets.from_keras(model)
    assert net.state == ()
    (left, right, _), state = applied(net, KEY, jnp.ones((100, 100)))
    assert state == ()
    for kept in (left, right):
        assert set(np.unique(kept)) == {0.0, 2.0}
        assert abs(float(kept.mean()) - 1) < 0.05  # five standard errors: 5 / sqrt(10000)
    assert abs(float((left == right).mean()) - 0.5) < 0.025  # five standard errors: 5 x 0.5 / sqrt(10000)
    raw, _ = applied(net, jax.random.PRNGKey(1), jnp.ones((100, 100)))
    np.testing.assert_array_equal(raw[0], left)


class Inner(layers.Layer):
    """Holds layers of its own, where ``Model.layers`` does not look."""

    def __init__(self):
        super().__init__(name="inner")
        self.dense, self.norm = layers.Dense(4, name="dense"), layers.BatchNormalization(momentum=0.5, name="norm")

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((*shape[:-1], 4))

    def call(self, x, training=None):
        return self.norm(self.dense(x), training=training)


def test_statistics_inside_a_users_layer_are_found():
    model = keras.Sequential([layers.Input((3,)), Inner()])
    net = nets.from_keras(model)
    outputs, _ = applied(net, KEY)
    np.testing.assert_array_equal(outputs, applied(net, None)[0])
    assert not np.allclose(outputs, applied(nets.trained_state(net), KEY)[0])


def test_weights_are_copies():
    """Keras' own training deletes the arrays that it was given."""
    model = keras.Sequential([layers.Input((3,)), layers.BatchNormalization(), layers.Dense(2)])
    net = nets.from_keras(model)
    before = np.asarray(applied(net, None)[0])
    for variable in model.variables:
        variable.value.delete()
    np.testing.assert_array_equal(applied(net, None)[0], before)


class Deaf(keras.Model):
    """Its call does not take ``training``."""

    def __init__(self, rate=None):
        super().__init__(name="deaf")
        self.head, self.dropout = layers.Dense(2, name="head"), None if rate is None else layers.Dropout(rate)

    def call(self, x):
        return self.head(x if self.dropout is None else self.dropout(x))


def test_a_model_whose_call_does_not_take_training():
    model = Deaf()
    with pytest.raises(
        ValueError, match=r"model 'deaf' is not built; call it on some inputs, or begin it with keras\.I"
    ):
        nets.from_keras(model)
    expected = model(INPUTS)
    net = nets.from_keras(model)
    np.testing.assert_array_equal(applied(net, KEY)[0], expected)
    noisy = Deaf(0.5)
    noisy(INPUTS)
    with pytest.raises(
        ValueError, match=r"has dropout or batch normalisation, and its call does not take training; de"
    ):
        nets.from_keras(noisy)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_are_warned_about(activation):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2, activation=activation, name="head")])
    with pytest.warns(UserWarning, match=f"the last layer, 'head', ends with {activation}; likelihoods take raw outp"):
        nets.from_keras(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nets.from_keras(keras.Sequential([layers.Input((3,)), layers.Dense(2, activation="relu")]))


def test_refusals(monkeypatch):
    with pytest.raises(TypeError, match=r"model is dict; give a keras\.Model"):
        nets.from_keras({})
    with pytest.raises(ValueError, match="params holds no parameters"):
        nets.from_keras(keras.Sequential([layers.Input((3,)), layers.ReLU()]))
    parts = [keras.Sequential([layers.Input((3,)), layers.Dense(3, name="same")], name="part") for _ in range(2)]
    parts[1].name = "other"
    with pytest.raises(
        ValueError, match="model 'whole' has two variables at 'part/same/kernel'; give its layers names"
    ):
        nets.from_keras(keras.Sequential([layers.Input((3,)), *parts], name="whole"))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(RuntimeError, match="Keras runs on the backend 'torch'; set KERAS_BACKEND=jax before importing"):
        nets.from_keras({})
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match="from_keras needs Keras 3: pip install keras"):
        nets.from_keras({})
