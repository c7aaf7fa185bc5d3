"""Which layers are found in a network, and how it is said."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import layer_networks as networks
import numpy as np
import pytest
from flax import nnx
from jax import lax

import bayestl as btl
from bayestl import curvature
from bayestl.layers._windows import pool

KEY = jax.random.key(0)


def _ways(problem: networks.Problem) -> dict[str, tuple[str, str]]:
    inventory = curvature.find_layers(problem.joint, problem.params, problem.data.inputs)
    return {entry.path: (entry.kind, entry.description) for entry in inventory.entries}


def test_layers_of_a_picture_network():
    ways = _ways(networks.pictures())
    assert ways["first/kernel"] == ("convolution", "3 x 3, 2 inputs, 4 outputs, 25 positions")
    assert ways["first/bias"] == ("bias", "of 'first/kernel'")
    assert ways["norm/scale"] == ("scale", "mul")
    assert ways["norm/bias"] == ("shift", "add")
    assert ways["depthwise/kernel"] == ("convolution", "3 x 2, 1 input, 1 output, 12 positions, 4 groups")
    assert ways["depthwise/bias"] == ("bias", "of 'depthwise/kernel'")
    assert ways["groups/kernel"] == ("convolution", "1 x 2, 2 inputs, 3 outputs, 12 positions, 2 groups")
    assert ways["transposed/kernel"] == ("convolution", "2 x 2, 6 inputs, 2 outputs, 48 positions")
    assert ways["token"] == ("operation", "concatenate")
    assert ways["attention/query/kernel"] == ("dense", "2 inputs, 4 outputs, 13 positions")
    assert ways["attention/query/bias"] == ("bias", "of 'attention/query/kernel'")
    assert ways["attention/out/bias"] == ("bias", "of 'attention/out/kernel'")
    assert ways["head/bias"] == ("bias", "of 'head/kernel'")


def _transposed_convolution() -> networks.Problem:
    """As Keras has it: the kernel is that of the convolution whose transpose it is, so it is reversed on its way."""

    def apply(params, x):
        x = lax.conv_transpose(x, params["kernel"], (2, 1), "SAME", transpose_kernel=True)
        return jnp.tanh(x + params["bias"]).sum((1, 2))

    keys = jax.random.split(KEY, 3)
    params = {"kernel": jax.random.normal(keys[0], (3, 2, 4, 2)), "bias": jax.random.normal(keys[1], (4,))}
    return networks.make(btl.nets.from_function(apply, params), jax.random.normal(keys[2], (2, 3, 2, 2)), 4)


@pytest.mark.x64
def test_a_transposed_convolution_with_the_kernel_of_its_forward_one():
    problem = _transposed_convolution()
    assert _ways(problem) == {
        "kernel": ("convolution", "3 x 2, 2 inputs, 4 outputs, 12 positions"),
        "bias": ("bias", "of 'kernel'"),
    }
    joint, inputs = problem.joint, problem.data.inputs
    jacobian = jax.jacrev(lambda params: joint.outputs(params, inputs)[0])(problem.params)
    probs = np.asarray(jax.nn.softmax(joint.outputs(problem.params, inputs)[0]))
    hessian = probs[:, :, None] * np.eye(4) - probs[:, :, None] * probs[:, None, :]
    built = curvature.diagonal()(KEY, joint, problem.params, problem.data, curvature.ggn, 2).diagonal
    for name, leaf in built.items():
        j = np.asarray(jacobian[name]).reshape(2, 4, -1)
        np.testing.assert_allclose(np.ravel(leaf), np.einsum("nca,ncd,nda->a", j, hessian, j), rtol=1e-9)


def test_layers_of_a_linen_network():
    ways = _ways(networks.sequence())
    assert ways["Conv_0/kernel"] == ("convolution", "2, 2 inputs, 3 outputs, 3 positions")
    assert ways["CheckpointDense_0/kernel"] == ("dense", "3 inputs, 4 outputs, 3 positions")
    assert ways["CheckpointDense_0/bias"] == ("bias", "of 'CheckpointDense_0/kernel'")
    assert ways["RMSNorm_0/scale"] == ("scale", "mul")
    assert ways["DenseGeneral_0/bias"] == ("bias", "of 'DenseGeneral_0/kernel'")


def test_look_ups_and_layers_applied_several_times():
    assert _ways(networks.tokens()) == {
        "head": ("dense", "3 inputs, 2 outputs"),
        "layer_norm/bias": ("shift", "add"),
        "layer_norm/scale": ("scale", "mul"),
        "positions": ("shift", "add and add"),
        "rms_norm": ("scale", "mul"),
        "table": ("look-up", "6 rows of 2, 5 positions, applied 2 times"),
        "twice/bias": ("bias", "of 'twice/kernel'"),
        "twice/kernel": ("dense", "2 inputs, 3 outputs, 5 positions, applied 2 times"),
    }
    assert _ways(networks.tied())["table"] == ("tied", "look-up and dense")


def test_layers_inside_loops():
    assert _ways(networks.scans()) == {
        "cell/bias": ("shift", "add"),
        "cell/inner": ("dense", "2 inputs, 3 outputs, 4 positions, 4 steps"),
        "cell/outer": ("dense", "3 inputs, 3 outputs, 4 positions, 4 steps"),
        "head": ("dense", "3 inputs, 2 outputs"),
        "stack/bias": ("bias", "of 'stack/kernel'"),
        "stack/kernel": ("dense", "3 inputs, 3 outputs, 4 positions, 2 groups, 2 steps"),
        "stack/scale": ("scale", "mul"),
        "start": ("operation", "scan"),
    }


def test_other_ways_are_reported():
    problem = networks.odd()
    ways = _ways(problem)
    assert ways == {
        "beta": ("shift", "add"),
        "embedding": ("look-up", "4 rows of 2"),
        "gamma": ("elementwise", "mul and add"),
        "half": ("operation", "dot_general"),
        "head/kernel": ("dense", "2 inputs, 3 outputs"),
        "heads": ("dense", "1 input, 2 outputs, 2 groups"),
        "output": ("bias", "of 'head/kernel'"),
        "own_rule": ("operation", "custom_jvp_call"),
        "positive": ("scale", "div"),
        "scanned/bias": ("bias", "of 'scanned/kernel'"),
        "scanned/kernel": ("dense", "2 inputs, 2 outputs, 2 groups, 2 steps"),
        "slope": ("scale", "mul"),
        "tied": ("tied", "dense and dense"),
        "unused": ("unused", "the outputs do not depend on it"),
    }
    inventory = curvature.find_layers(problem.joint, problem.params, problem.data.inputs)
    assert inventory.fallbacks == ("half", "own_rule")
    lines = str(inventory).splitlines()
    assert lines[0] == "beta            shift        add"
    assert len(lines) == len(ways)
    built = jax.eval_shape(
        lambda params: curvature.diagonal()(KEY, problem.joint, params, problem.data, curvature.ggn, 2), problem.params
    )
    assert built.inventory == inventory


def test_a_part_of_the_parameters():
    problem = networks.mlp()
    part = btl.infer.condition(problem.joint, problem.params, ["head/kernel", "dense_0/bias"])
    inventory = curvature.find_layers(part.joint, part.params, problem.data.inputs)
    assert [(entry.path, entry.kind) for entry in inventory.entries] == [
        ("dense_0/bias", "shift"),
        ("head/kernel", "dense"),
    ]


def test_a_squeezed_batch_axis_is_named():
    net = btl.nets.from_function(lambda params, x: jnp.squeeze(x @ params["w"]), {"w": jnp.zeros((3, 1))})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=4)
    with pytest.raises(
        ValueError, match=r"for a batch of one example .* output of shape \(\); a leading axis of length 1 is needed"
    ):
        curvature.find_layers(joint, net.params, jnp.ones((4, 3)))


@pytest.mark.parametrize("name", ["max", "sum"])
@pytest.mark.parametrize(
    ("sizes", "strides", "padding", "dilation"),
    [((2, 2), (2, 2), "VALID", (1, 1)), ((3, 2), (2, 1), "SAME", (1, 1)), ((2, 2), (1, 1), "VALID", (2, 1))],
)
def test_pooling_is_that_of_jax_with_its_gradient(name, sizes, strides, padding, dilation):
    # Whole numbers, so that several places of a window are often the largest.
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 5, 7, 3)), jnp.float32)
    operator, start = (lax.max, -jnp.inf) if name == "max" else (lax.add, 0.0)

    def by_jax(x: jax.Array) -> jax.Array:
        window, steps = (1, *sizes, 1), (1, *strides, 1)
        return lax.reduce_window(x, start, operator, window, steps, padding, window_dilation=(1, *dilation, 1))

    (equation,) = jax.make_jaxpr(by_jax)(x).jaxpr.eqns[-1:]

    def by_slices(x: jax.Array) -> jax.Array:
        return pool(equation.primitive.name, equation.params, x)

    def with_gradient(function: Any) -> Any:
        value, pull_back = jax.vjp(function, x)
        return value, *pull_back(jnp.sin(jnp.arange(value.size, dtype=x.dtype).reshape(value.shape)))

    found, gradient = with_gradient(by_slices)
    np.testing.assert_array_equal(found, by_jax(x))
    unknown = x.at[0, 1, 1, 0].set(jnp.nan)
    np.testing.assert_array_equal(by_slices(unknown), by_jax(unknown))
    if name == "sum" or dilation == (1, 1):  # JAX has no gradient of the largest value with dilation
        np.testing.assert_allclose(gradient, with_gradient(by_jax)[1], rtol=1e-6, atol=1e-6)


def test_one_program_for_two_calls():
    traced = []

    def network(params, x):
        traced.append(1)
        return x @ params["w"]

    net = btl.nets.from_function(network, {"w": jnp.ones((3, 2))})
    prior = btl.gaussians.isotropic(net.params, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=4)
    data = btl.data.arrays(jnp.ones((4, 3)), jnp.zeros(4, int))
    for builder in (curvature.diagonal, curvature.kronecker):
        first = btl.infer.laplace(KEY, joint, net.params, data, curvature=builder())
        count = len(traced)
        second = btl.infer.laplace(KEY, joint, {"w": 2 * net.params["w"]}, data, curvature=builder())
        assert type(first) is type(second)
        # Checks of shapes trace the network; the curvature and the prior are compiled already.
        assert len(traced) - count < count / 2


def test_batch_statistics_are_refused():
    class Training(nnx.Module):
        def __init__(self, rngs):
            self.head = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            return self.head((x - x.mean(0)) / (1e-3 + x.std(0)))

    net = btl.nets.from_nnx(Training(nnx.Rngs(0)))
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=4)
    data = btl.data.arrays(np.random.default_rng(0).normal(size=(4, 3)), np.zeros(4, int))
    with pytest.raises(ValueError, match="batch statistics"):
        btl.infer.laplace(KEY, joint, net.params, data, curvature=curvature.diagonal())
