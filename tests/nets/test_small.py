"""The two small networks against the same arithmetic in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import nets, tree


def in_float64(rng, params):
    return jax.tree.map(lambda x: rng.normal(size=x.shape), params)


@pytest.mark.x64
@pytest.mark.parametrize("sizes", [(4, 3), (12, 5, 3), (12, 6, 5, 2)])
def test_mlp_is_the_textbook_one(sizes):
    net = nets.mlp(jax.random.key(0), sizes, jnp.tanh)
    rng = np.random.default_rng(0)
    params = in_float64(rng, net.params)
    assert sorted(params) == [f"dense_{i}" for i in range(len(sizes) - 2)] + ["head"]
    inputs = rng.normal(size=(3, 2, sizes[0] // 2))
    x = inputs.reshape(3, -1)
    for i in range(len(sizes) - 2):
        x = np.tanh(x @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"])
    np.testing.assert_allclose(net(params, inputs), x @ params["head"]["kernel"] + params["head"]["bias"], rtol=1e-12)


def conv_by_hand(kernel, bias, x):
    """3 x 3 correlation with a border of zeros, one tap at a time."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)]
    return sum(taps) + bias


@pytest.mark.x64
def test_conv_net_is_the_textbook_one():
    net = nets.conv_net(jax.random.key(0), (9, 8, 2), (3, 4), 5, jnp.tanh)
    rng = np.random.default_rng(0)
    params, x = in_float64(rng, net.params), rng.normal(size=(2, 9, 8, 2))
    assert tree.paths(params) == [f"{p}/{q}" for p in ("conv_0", "conv_1", "head") for q in ("bias", "kernel")]
    inputs = x
    for i in range(2):
        x = np.tanh(conv_by_hand(params[f"conv_{i}"]["kernel"], params[f"conv_{i}"]["bias"], x))
        x = x[:, : x.shape[1] // 2 * 2]  # 9 rows pool to 4
        x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    assert x.shape == (2, 2, 2, 4)
    expected = x.mean(axis=(1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(net(params, inputs), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "layer", "gain", "fan_in"),
    [
        (lambda key: nets.mlp(key, (300, 200, 100)), "dense_0", 2.0, 300),
        (lambda key: nets.mlp(key, (30, 200, 100)), "head", 1.0, 200),
        (lambda key: nets.conv_net(key, (8, 8, 50), (60,), 3), "conv_0", 2.0, 450),
    ],
)
def test_initial_kernels_have_the_stated_variance(make, layer, gain, fan_in):
    """The sample variance of n draws of bounded fourth moment has a relative error below sqrt(2 / n); five of them."""
    net = make(jax.random.key(1))
    kernel = np.asarray(net.params[layer]["kernel"])
    assert abs(kernel.var() * fan_in / gain - 1) < 5 * np.sqrt(2 / kernel.size)
    np.testing.assert_array_equal(net.params[layer]["bias"], 0)


def test_bytes_are_taken_as_numbers():
    pictures = np.array([0, 1, 2, 255], np.uint8).reshape(1, 2, 2, 1)
    for net in (nets.mlp(jax.random.key(0), (4, 3, 2)), nets.conv_net(jax.random.key(0), (2, 2, 1), (3,), 2)):
        np.testing.assert_array_equal(net(net.params, pictures), net(net.params, pictures.astype(np.float32)))


def test_nets_of_one_shape_share_a_program_and_keys_differ():
    one, other = (nets.mlp(jax.random.key(seed), (4, 3, 2)) for seed in (0, 1))
    assert (one.apply, hash(one.apply)) == (other.apply, hash(other.apply))
    assert one.apply != nets.mlp(jax.random.key(0), (4, 3, 2), jnp.tanh).apply
    assert not np.allclose(one.params["head"]["kernel"], other.params["head"]["kernel"])


def test_refusals():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"sizes is \(4,\); give input, hidden and output sizes, at least two"):
        nets.mlp(key, (4,))
    with pytest.raises(ValueError, match=r"sizes is \(4, 0, 2\)"):
        nets.mlp(key, (4, 0, 2))
    with pytest.raises(ValueError, match=r"input_shape is \(8, 8\); give \(height, width, channels\)"):
        nets.conv_net(key, (8, 8), (4,), 2)
    with pytest.raises(ValueError, match=r"channels is \(\) and num_classes 2; give at least one block"):
        nets.conv_net(key, (8, 8, 1), (), 2)
    with pytest.raises(ValueError, match=r"input_shape \(4, 8, 1\) is too small for 3 blocks.*at least 8 x 8"):
        nets.conv_net(key, (4, 8, 1), (2, 2, 2), 2)
