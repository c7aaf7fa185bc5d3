"""Plain functions as networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import nets


def line(params, inputs):
    return inputs @ params["kernel"] + params["bias"]


def line_of_tuple(params, inputs):
    kernel, (bias,) = params
    return inputs @ kernel + bias


KERNEL, BIAS = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1.0, -1.0], np.float32)
INPUTS = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("function", "params"), [(line, {"kernel": KERNEL, "bias": BIAS}), (line_of_tuple, (KERNEL, (BIAS,)))]
)
def test_outputs_and_gradients_keep_the_structure_of_params(function, params):
    net = nets.from_function(function, params)
    np.testing.assert_array_equal(net(net.params, INPUTS), INPUTS @ KERNEL + BIAS)  # small integers: exact
    outputs, state = net.apply(net.params, net.state, INPUTS, jax.random.key(0))
    np.testing.assert_array_equal(outputs, INPUTS @ KERNEL + BIAS)
    assert state == ()
    gradient = jax.grad(lambda p: net(p, INPUTS).sum())(net.params)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    np.testing.assert_array_equal(jax.tree.leaves(gradient)[0].shape, jax.tree.leaves(params)[0].shape)


def test_params_are_lifted_to_float32():
    net = nets.from_function(line, {"kernel": jnp.ones((3, 2), jnp.bfloat16), "bias": np.zeros(2, np.float16)})
    assert {leaf.dtype.name for leaf in jax.tree.leaves(net.params)} == {"float32"}


def test_a_net_made_again_does_not_compile_again():
    traces = []

    @jax.jit
    def outputs(net, inputs):
        traces.append(1)
        return net(net.params, inputs)

    for scale in (1.0, 2.0):
        net = nets.from_function(line, {"kernel": scale * KERNEL, "bias": BIAS})
        np.testing.assert_array_equal(outputs(net, INPUTS), scale * INPUTS @ KERNEL + BIAS)
    assert len(traces) == 1


class Unhashable:
    """A function object that cannot be hashed, as a dataclass with an array in it."""

    __hash__ = None

    def __call__(self, params, inputs):
        return params["scale"] * inputs


def test_unhashable_functions_are_compared_by_identity():
    function = Unhashable()
    one, same, other = (nets.from_function(f, {"scale": jnp.ones(())}) for f in (function, function, Unhashable()))
    assert (one.apply == same.apply, one.apply == other.apply) == (True, False)
    assert hash(one.apply) == hash(same.apply)
    np.testing.assert_array_equal(jax.jit(lambda net, x: net(net.params, x))(one, INPUTS), INPUTS)


def test_refusals():
    with pytest.raises(TypeError, match="function is 3; give a function"):
        nets.from_function(3, {"w": jnp.ones(2)})
    with pytest.raises(TypeError, match="params at 'steps' has dtype int32; parameters must be floating point"):
        nets.from_function(line, {"kernel": KERNEL, "steps": jnp.zeros((), jnp.int32)})
    with pytest.raises(ValueError, match="params holds no parameters"):
        nets.from_function(line, {})
    with pytest.raises(ValueError, match="params at 'w' has 1 non-finite of 2 values; load the weights again"):
        nets.from_function(line, {"w": jnp.array([1.0, jnp.nan])})
