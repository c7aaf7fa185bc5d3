"""Every network replayed from its traced program is the network itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import layer_networks as networks
import pytest
from replay import assert_replays

import bayestl as btl
from bayestl.layers import _fast

pytestmark = pytest.mark.optimized  # what XLA makes of these programs is what they are about


@pytest.mark.x64
@pytest.mark.parametrize("name", ["mlp", "pictures", "sequence", "odd", "tokens", "tied", "scans"])
def test_a_replayed_network_is_the_network(name):
    problem = getattr(networks, name)()
    # Flax computes the softmax of attention in float32, whatever it is given.
    rtol = 1e-5 if name == "pictures" else 1e-12
    outputs = problem.joint.outputs
    assert_replays(lambda params, x: outputs(params, x)[0], problem.params, problem.data.inputs, rtol)


def test_a_convolutional_network_in_single_precision():
    """Sums of up to 1,000 rounded products: their relative errors of 6e-8 add up like a random walk, layer by layer."""
    net = btl.nets.conv_net(jax.random.key(0), (9, 9, 2), (3, 4), 3)
    inputs = jnp.asarray(networks.normal(5, 9, 9, 2), jnp.float32)
    assert_replays(lambda params, x: net(params, x), net.params, inputs, 1e-5)


def test_a_replay_that_is_wrong_is_noticed(monkeypatch):
    """The check above can fail: one slip of 1e-3 in the product that stands for a convolution."""
    net = btl.nets.conv_net(jax.random.key(0), (5, 5, 1), (2,), 3)
    inputs = jnp.asarray(networks.normal(2, 5, 5, 1), jnp.float32)
    product = _fast._product
    monkeypatch.setattr(_fast, "_product", lambda *arguments: 1.001 * product(*arguments))
    with pytest.raises(AssertionError):
        assert_replays(lambda params, x: net(params, x), net.params, inputs, 1e-5)
