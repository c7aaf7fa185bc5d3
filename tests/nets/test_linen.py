"""Flax linen modules as networks: the same numbers as the module itself."""

from __future__ import annotations

from collections.abc import Sequence

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import nets, tree

INPUTS = jax.random.normal(jax.random.key(9), (6, 3))


class Noisy(nn.Module):
    """Batch statistics, dropout and a second random stream."""

    width: int = 8
    noise: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(self.width)(x))
        if self.noise and train:
            x = x + self.noise * jax.random.normal(self.make_rng("noise"), x.shape)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(2, name="head")(x)


def noisy_net(module: nn.Module, seed: int = 0, **kwargs) -> tuple[nets.Net, dict]:
    variables = module.init(jax.random.key(seed), INPUTS, train=False)
    net = nets.from_linen(module, variables, train={"train": True}, evaluate={"train": False}, **kwargs)
    return nets.trained_state(net), variables


def assert_trees_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_plain_module_has_no_state():
    module = nn.Dense(2)
    variables = module.init(jax.random.key(0), INPUTS)
    net = nets.from_linen(module, variables)
    assert net.state == ()
    for key in (None, jax.random.key(1)):
        outputs, state = net.apply(net.params, net.state, INPUTS, key)
        np.testing.assert_array_equal(outputs, module.apply(variables, INPUTS))
        assert state == ()


def test_without_a_key_outputs_are_the_modules_own_and_the_state_is_frozen():
    net, variables = noisy_net(Noisy())
    outputs, state = net.apply(net.params, net.state, INPUTS, None)
    np.testing.assert_array_equal(outputs, Noisy().apply(variables, INPUTS, train=False))
    assert_trees_equal(state, {"batch_stats": variables["batch_stats"]})


def test_with_a_key_outputs_and_state_are_those_of_flax():
    net, variables = noisy_net(Noisy())
    state = net.state
    for step in range(3):
        key = jax.random.key(step)
        expected, updates = Noisy().apply(variables, INPUTS, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
        outputs, state = net.apply(net.params, state, INPUTS, key)
        np.testing.assert_array_equal(outputs, expected)
        assert_trees_equal(state, updates)
        variables = {**variables, **updates}
    assert not np.allclose(state["batch_stats"]["BatchNorm_0"]["mean"], 0)


def test_frozen_variables_keep_the_structure_of_the_state():
    net, variables = noisy_net(Noisy())
    frozen = nets.from_linen(Noisy(), flax.core.freeze(variables), train={"train": True}, evaluate={"train": False})
    frozen = nets.trained_state(frozen)
    outputs, state = frozen.apply(frozen.params, frozen.state, INPUTS, jax.random.key(0))
    assert jax.tree.structure(state) == jax.tree.structure(frozen.state)
    np.testing.assert_array_equal(outputs, net.apply(net.params, net.state, INPUTS, jax.random.key(0))[0])


def test_the_key_alone_decides_the_noise():
    net, _ = noisy_net(Noisy())
    one, again, other = (net.apply(net.params, net.state, INPUTS, jax.random.key(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_several_streams_get_keys_of_their_own():
    module = Noisy(noise=1.0)
    net, variables = noisy_net(module, streams=("dropout", "noise"))
    key = jax.random.key(4)
    outputs, _ = net.apply(net.params, net.state, INPUTS, key)
    dropout, noise = jax.random.split(key)
    expected, _ = module.apply(
        variables, INPUTS, train=True, rngs={"dropout": dropout, "noise": noise}, mutable=["batch_stats"]
    )
    np.testing.assert_array_equal(outputs, expected)


def test_gradients_have_the_structure_of_params():
    net, variables = noisy_net(Noisy())
    gradient = jax.grad(lambda p: net.apply(p, net.state, INPUTS, jax.random.key(0))[0].sum())(net.params)
    assert jax.tree.structure(gradient) == jax.tree.structure(variables["params"])
    assert "head/kernel" in tree.paths(gradient)
    np.testing.assert_array_equal(gradient["head"]["bias"], [6.0, 6.0])  # d sum / d bias counts the examples


def test_a_net_made_again_does_not_compile_again():
    traces = []

    @jax.jit
    def step(net, key):
        traces.append(1)
        outputs, state = net.apply(net.params, net.state, INPUTS, key)
        return outputs, state

    for seed in (0, 1):
        step(noisy_net(Noisy(), seed)[0], jax.random.key(seed))
    assert len(traces) == 1
    step(noisy_net(Noisy(width=4))[0], jax.random.key(0))
    assert len(traces) == 2


class Listed(nn.Module):
    """Its attribute cannot be hashed."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.widths[0])(x)


def test_unhashable_modules_work_under_jit():
    module = Listed([2])
    variables = module.init(jax.random.key(0), INPUTS)
    net = nets.from_linen(module, variables)
    outputs = jax.jit(lambda net: net(net.params, INPUTS))(net)
    # Fused and unfused products of three terms differ by rounding.
    np.testing.assert_allclose(outputs, module.apply(variables, INPUTS), rtol=1e-5, atol=1e-6)
    assert net.apply == nets.from_linen(module, variables).apply
    assert net.apply != nets.from_linen(Listed([2]), variables).apply


class Settled(nn.Module):
    """Its normalisation has the mode as an attribute."""

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False, name="norm")(nn.Dense(2)(x))


def test_frozen_statistics_hold_against_the_modules_own_attribute():
    module = Settled()
    variables = module.init(jax.random.key(0), INPUTS)
    net = nets.from_linen(module, variables)
    outputs, state = net.apply(net.params, net.state, INPUTS, jax.random.key(0))
    dense = variables["params"]["Dense_0"]
    # The running statistics are 0 and 1; the layer adds 1e-5 to the variance. Products of three float32 terms.
    np.testing.assert_allclose(outputs, INPUTS @ dense["kernel"] / np.sqrt(1 + 1e-5), rtol=1e-5, atol=1e-6)
    assert state is net.state


def test_refusals():
    module = nn.Dense(2)
    params = module.init(jax.random.key(0), INPUTS)["params"]
    with pytest.raises(ValueError, match=r"""variables has no "params"; its collections are 'kernel', 'bias'"""):
        nets.from_linen(module, {"kernel": params["kernel"], "bias": params["bias"]})
    with pytest.raises(TypeError, match=r"variables is list; give what module\.init returned"):
        nets.from_linen(module, [params])
    with pytest.raises(TypeError, match="params at 'count' has dtype int32; parameters must be floating point"):
        nets.from_linen(module, {"params": {**params, "count": jnp.zeros((), int)}})
    with pytest.raises(TypeError, match=r"""train is True; give the keyword.*train=\{"train": True\}"""):
        nets.from_linen(module, {"params": params}, train=True)
    with pytest.raises(TypeError, match="streams is 'dropout'; give a sequence of names"):
        nets.from_linen(module, {"params": params}, streams="dropout")
