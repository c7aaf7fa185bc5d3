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
    assert ways["first/kernel"] == ("layer", "convolution 3 x 3, 25 positions")
    assert ways["first/bias"] == ("layer", "bias of 'first/kernel'")
    assert ways["norm/scale"] == ("elementwise", "mul")
    assert ways["norm/bias"] == ("elementwise", "add")
    assert ways["depthwise/kernel"] == ("layer", "convolution 3 x 2, 12 positions, 4 groups")
    assert ways["depthwise/bias"] == ("layer", "bias of 'depthwise/kernel'")
    assert ways["groups/kernel"] == ("layer", "convolution 1 x 2, 12 positions, 2 groups")
    assert ways["transposed/kernel"] == ("layer", "convolution 2 x 2, 48 positions")
    assert ways["token"] == ("one operation", "concatenate")
    assert ways["attention/query/kernel"] == ("layer", "dense, shared by 13 positions")
    assert ways["attention/query/bias"] == ("layer", "bias of 'attention/query/kernel'")
    assert ways["attention/out/bias"] == ("layer", "bias of 'attention/out/kernel'")
    assert ways["head/bias"] == ("layer", "bias of 'head/kernel'")


def test_layers_of_a_linen_network():
    ways = _ways(networks.sequence())
    assert ways["Conv_0/kernel"] == ("layer", "convolution 2, 3 positions")
    assert ways["CheckpointDense_0/kernel"] == ("layer", "dense, shared by 3 positions")
    assert ways["CheckpointDense_0/bias"] == ("layer", "bias of 'CheckpointDense_0/kernel'")
    assert ways["RMSNorm_0/scale"] == ("elementwise", "mul")
    assert ways["DenseGeneral_0/bias"] == ("layer", "bias of 'DenseGeneral_0/kernel'")


def test_other_ways_are_reported():
    problem = networks.odd()
    ways = _ways(problem)
    assert ways == {
        "beta": ("whole network", "enters sub without the inputs"),
        "embedding": ("one operation", "gather"),
        "gamma": ("whole network", "enters 2 times: mul, sub without the inputs"),
        "half": ("one operation", "dot_general"),
        "head/kernel": ("layer", "dense"),
        "heads": ("layer", "dense, 2 groups"),
        "output": ("layer", "bias of 'head/kernel'"),
        "own_rule": ("one operation", "custom_jvp_call"),
        "positive": ("elementwise", "div"),
        "scanned/bias": ("one operation", "scan"),
        "scanned/kernel": ("one operation", "scan"),
        "slope": ("elementwise", "mul"),
        "tied": ("whole network", "enters 2 times: dot_general, dot_general"),
        "unused": ("unused", "the outputs do not depend on it"),
    }
    inventory = curvature.find_layers(problem.joint, problem.params, problem.data.inputs)
    assert set(inventory.fallbacks) == {
        path for path, (way, _) in ways.items() if way in ("whole network", "one operation")
    }
    lines = str(inventory).splitlines()
    assert lines[0] == "beta            whole network  enters sub without the inputs"
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
        ("dense_0/bias", "elementwise"),
        ("head/kernel", "layer"),
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
