"""Networks that compute in lower precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

PARAMS = {"w": jnp.array([1.0 + 2.0**-12, 2.0])}


def spy(params, state, inputs, key):
    """Shows what arrives: dtypes as numbers of bits, and whether the small part of ``w`` is still there."""
    bits = jnp.finfo(params["w"].dtype).bits, jnp.finfo(inputs["x"].dtype).bits
    outputs = params["w"][0] * inputs["x"] + 0 * inputs["label"]
    return (outputs, jnp.int32(bits[0])), {"mean": jnp.mean(outputs), "count": state["count"] + 1, "bits": bits}


STATE = {"mean": jnp.float32(0), "count": jnp.int32(3), "bits": (jnp.int32(0), jnp.int32(0))}
INPUTS = {"x": jnp.array([1.0, 3.0]), "label": jnp.array([1, 2])}


def test_computes_in_bfloat16_and_keeps_everything_else():
    net = btl.nets.cast(btl.Net(PARAMS, STATE, lambda *xs: _with_arrays(spy(*xs))), jnp.bfloat16)
    assert net.params["w"].dtype == jnp.float32
    (outputs, bits), state = net.apply(net.params, net.state, INPUTS, jax.random.key(0))
    assert int(bits) == 16
    assert [int(b) for b in state["bits"]] == [16, 16]
    assert outputs.dtype == jnp.float32
    # 1 + 2^-12 is 1 in bfloat16, which has 8 bits.
    np.testing.assert_array_equal(outputs, [1.0, 3.0])
    assert state["mean"].dtype == jnp.float32
    assert int(state["count"]) == 4


def _with_arrays(result):
    return jax.tree.map(jnp.asarray, result)


def test_gradients_arrive_in_float32():
    net = btl.nets.cast(btl.nets.mlp(jax.random.key(0), (3, 8, 2)), jnp.bfloat16)
    full = btl.nets.mlp(jax.random.key(0), (3, 8, 2))
    x = jax.random.normal(jax.random.key(1), (16, 3))

    def gradient(net):
        return jax.grad(lambda params: jnp.sum(net(params, x) ** 2))(net.params)

    for low, high in zip(jax.tree.leaves(gradient(net)), jax.tree.leaves(gradient(full)), strict=True):
        assert low.dtype == jnp.float32
        assert not np.array_equal(low, high)
        # Two layers, forward and back: some ten roundings of 2^-8 each.
        assert np.linalg.norm(low - high) <= 10 * 2.0**-8 * np.linalg.norm(high)


def test_equal_nets_share_a_program():
    net = btl.nets.mlp(jax.random.key(0), (3, 2))
    one, two = (btl.nets.cast(net, jnp.bfloat16) for _ in range(2))
    assert one.apply == two.apply
    assert hash(one.apply) == hash(two.apply)
    assert one.apply != btl.nets.cast(net, jnp.float16).apply


@pytest.mark.parametrize(
    ("net", "dtype", "message"),
    [
        (btl.nets.mlp(jax.random.key(0), (3, 2)), jnp.int8, "dtype is .*int8.*; give a floating-point dtype"),
        ("resnet", jnp.bfloat16, "net is 'resnet'; give a Net"),
    ],
)
def test_bad_input(net, dtype, message):
    with pytest.raises(TypeError, match=message):
        btl.nets.cast(net, dtype)
