"""Policies for running statistics: what is refused, what stays, and a backbone with batch normalisation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import bayestl as btl
from bayestl import nets, pretrained, tree

INPUTS = jax.random.normal(jax.random.key(9), (6, 3))
KEY = jax.random.key(1)


def data(inputs=INPUTS):
    return btl.data.arrays(inputs, jnp.zeros(inputs.shape[0]))


def by_hand():
    def apply(params, state, inputs, key):
        return inputs * params["scale"], state + 1

    return nets.Net({"scale": jnp.ones(())}, jnp.zeros(()), apply)


def test_a_network_without_state_has_no_policy():
    net = nets.mlp(KEY, (3, 4, 1))
    assert nets.state_policy(net) == "none"
    assert nets.state_policy(btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=6)) == "none"
    assert nets.frozen_state(net) is net
    assert nets.trained_state(net) is net


class Counting(nnx.Module):
    """State that is no statistic, next to statistics."""

    def __init__(self, rngs):
        self.calls = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.norm = nnx.BatchNorm(3, momentum=0.99, rngs=rngs)

    def __call__(self, x):
        self.calls.set_value(self.calls.get_value() + 1)
        return self.norm(x)


def test_only_statistics_are_estimated_anew():
    net = nets.from_nnx(Counting(nnx.Rngs(0)))
    _, frozen = net.apply(net.params, net.state, INPUTS, KEY)
    assert int(frozen["calls"].get_value()) == 0
    _, trained = nets.trained_state(net).apply(net.params, net.state, INPUTS, KEY)
    assert int(trained["calls"].get_value()) == 1
    again = nets.reestimate_state(KEY, net, net.params, data(INPUTS), batch_size=4)
    assert int(again["calls"].get_value()) == 0
    assert again["calls"].get_value().dtype == jnp.int32
    # Equal shares per example, not per batch: at momentum 0.99 the old values would show.
    np.testing.assert_allclose(tree.by_paths(again)["norm/mean"], INPUTS.mean(0), rtol=1e-5, atol=1e-6)


def test_statistics_are_estimated_at_the_parameters_given():
    class Scaled(nnx.Module):
        def __init__(self, rngs):
            self.scale, self.norm = nnx.Param(jnp.ones(())), nnx.BatchNorm(3, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.scale * x)

    net = nets.trained_state(nets.from_nnx(Scaled(nnx.Rngs(0))))
    params = jax.tree.map(lambda x: 2 * x if x.ndim == 0 else x, net.params)
    state = nets.reestimate_state(KEY, net, params, data(), batch_size=6)
    np.testing.assert_allclose(tree.by_paths(state)["norm/var"], 4 * INPUTS.var(0), rtol=1e-5)  # six float32 terms
    with_it = dataclasses.replace(net, state=state)
    np.testing.assert_allclose(with_it(params, INPUTS).mean(0), np.zeros(3), atol=1e-6)


def test_a_backbone_freezes_and_trains():
    body = pretrained.cifar_resnet20(KEY, cut="stem")
    net = nets.from_nnx(body)
    pictures = jax.random.normal(KEY, (4, 8, 8, 3))
    outputs, state = net.apply(net.params, net.state, pictures, KEY)
    np.testing.assert_array_equal(outputs, net(net.params, pictures))
    jax.tree.map(np.testing.assert_array_equal, state, net.state)
    moved = nets.trained_state(net).apply(net.params, net.state, pictures, KEY)[1]
    conv = body.stem.conv1(pictures)
    # The share of the new statistics is 0.1; means of 256 float32 numbers.
    np.testing.assert_allclose(
        tree.by_paths(moved)["stem/bn1/mean"], 0.1 * conv.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6
    )


def test_streams_and_padding_give_the_same_statistics():
    net = nets.from_nnx(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    stream = btl.data.stream([*np.asarray(INPUTS)], lambda record: (record, 0))
    padded = btl.Batch(jnp.concatenate([INPUTS, jnp.full((2, 3), jnp.nan)]), jnp.zeros(8), jnp.arange(8) < 6)
    for given in (data(), stream, padded):
        state = tree.by_paths(nets.reestimate_state(KEY, net, net.params, given, batch_size=2))
        np.testing.assert_allclose(state["var"], np.asarray(INPUTS, np.float64).var(0), rtol=1e-5)  # float32 rounding


def test_refusals():
    for function in (nets.frozen_state, nets.trained_state, nets.state_policy):
        with pytest.raises(
            TypeError, match=r"net\.apply is function, which decides by itself what becomes of its state"
        ):
            function(by_hand())
    net = nets.from_nnx(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="batch_size 7 is not between 2 and the 6 examples"):
        nets.reestimate_state(KEY, net, net.params, data(), batch_size=7)
    with pytest.raises(ValueError, match=r"batch_size 1 is not between 2 and .* one example has no variance"):
        nets.reestimate_state(KEY, net, net.params, data(), batch_size=1)
    weighted = btl.Batch(INPUTS, jnp.zeros(6), jnp.array([1.0, 2.0, 1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="weights of the data are other than 0 and 1"):
        nets.reestimate_state(KEY, net, net.params, weighted, batch_size=2)
    net = nets.mlp(KEY, (3, 4, 1))
    with pytest.raises(ValueError, match="the network has no state, so that nothing can be re-estimated"):
        nets.reestimate_state(KEY, net, net.params, data(), batch_size=6)

    class Plain(nnx.Module):
        def __init__(self):
            self.scale, self.calls = nnx.Param(jnp.ones(())), nnx.BatchStat(jnp.zeros(()))

        def __call__(self, x):
            return self.scale * x

    net = nets.from_nnx(Plain())
    with pytest.raises(ValueError, match=r"no batch normalisation of Flax NNX's, so that .*; its state holds 'calls'"):
        nets.reestimate_state(KEY, net, net.params, data(), batch_size=6)
