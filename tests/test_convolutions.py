"""Convolutions written for compiled loops compute the same, whatever the order of their axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.signal import correlate

import bayestl as btl
from bayestl._convolutions import _to_rewrite, for_loop, loop_map
from bayestl._dispatch import equations

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 3, 6, 6)), jnp.float32)
W = jnp.asarray(RNG.normal(size=(4, 3, 3, 3)), jnp.float32)


def _conv(x: jax.Array, w: jax.Array, **options: Any) -> jax.Array:
    return lax.conv_general_dilated(x, w, (1, 1), [(0, 0), (0, 0)], **options)


def test_against_scipy():
    """Examples, channels, space: the order that is slow in a loop."""
    fast = for_loop(_conv, X, W)
    assert fast.shapes.shape == (2, 4, 4, 4)
    outputs = fast.function(X, W)
    x, w = np.asarray(X, np.float64), np.asarray(W, np.float64)
    for n, o in np.ndindex(2, 4):
        expected = sum(correlate(x[n, c], w[o, c], "valid") for c in range(3))
        np.testing.assert_allclose(outputs[n, o], expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"rhs_dilation": (2, 1)}, marks=pytest.mark.slow),
        {"lhs_dilation": (1, 2), "dimension_numbers": ("CHWN", "IHWO", "HWNC")},
        pytest.param({"feature_group_count": 3}, marks=pytest.mark.slow),
    ],
    ids=["dilated kernel", "dilated pictures, other axes", "groups"],
)
def test_gradients_are_those_of_the_plain_convolution(options):
    x, w = X, W
    if "dimension_numbers" in options:
        x, w = X.transpose(1, 2, 3, 0), W.transpose(1, 2, 3, 0)
    if "feature_group_count" in options:
        w = W.repeat(3, axis=0)[:6, :1]

    def gradient(x: jax.Array, w: jax.Array) -> Any:
        return jax.grad(lambda x, w: jnp.sum(_conv(x, w, **options) ** 2), (0, 1))(x, w)

    fast = for_loop(gradient, x, w)
    assert not _to_rewrite(jax.make_jaxpr(fast.function)(x, w))
    for a, b in zip(fast.function(x, w), gradient(x, w), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def _slow_in_loops(program: Any) -> bool:
    """Whether a loop of the program holds a convolution in another order of axes than the fast one."""
    bodies = [e.params["jaxpr"] for e in equations(program) if e.primitive.name == "scan"]
    return any(_to_rewrite(body) for body in bodies)


def test_programs_inside_and_values_from_outside():
    """Under ``jit``, ``checkpoint``, ``scan`` and ``cond``, and differentiated with respect to what was closed over."""

    def network(w: jax.Array, x: jax.Array) -> jax.Array:
        layer = jax.checkpoint(lambda x: jax.nn.relu(_conv(x, w)))
        first = jax.lax.cond(jnp.sum(x) > 0, lambda x: jax.jit(layer)(x), lambda x: layer(-x), x)
        return lax.scan(lambda total, s: (total + jnp.sum(layer(s * x)) * jnp.sum(first), None), 0.0, jnp.ones(2))[0]

    xs = jnp.stack([X, -2 * X])

    def plain(w: jax.Array) -> jax.Array:
        return jnp.sum(lax.map(lambda x: network(w, x), xs))

    def fast(w: jax.Array) -> jax.Array:
        return jnp.sum(loop_map(lambda x: network(w, x), xs))

    assert _slow_in_loops(jax.make_jaxpr(plain)(W))
    assert not _slow_in_loops(jax.make_jaxpr(fast)(W))
    for a, b in ((fast(W), plain(W)), (jax.grad(fast)(W), jax.grad(plain)(W))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_passes_predictions_and_curvature_hold_no_slow_convolution():
    """Every loop over batches or draws that a network with convolutions goes through."""
    net = btl.nets.from_function(lambda params, x: jnp.mean(jax.nn.tanh(_conv(x, params["w"])), (2, 3)), {"w": W})
    prior = btl.gaussians.isotropic(net.params, 1.0)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior)
    key, data = jax.random.key(0), btl.data.arrays(X, jnp.arange(2))

    def predictions(x: jax.Array) -> Any:
        predict = btl.predict.monte_carlo(key, joint, prior, 2, batch_size=1)
        average = btl.predict.monte_carlo_average(key, joint, prior, 2, batch_size=1)
        return predict(x).outputs, average(x).probs

    def sums(params: Any) -> Any:
        def loss(key: jax.Array, batch: btl.Batch) -> Any:
            return jax.grad(lambda p: jnp.sum(joint.log_likelihoods(p, batch)))(params)

        return btl.passes.batches(data, 1).sum(key, loss)

    def structures(params: Any) -> Any:
        chosen = (btl.curvature.dense(), btl.curvature.low_rank(1), btl.curvature.dual())
        return [btl.infer.laplace(key, joint, params, data, curvature=c, batch_size=1).variance for c in chosen]

    for function, argument in ((predictions, X), (sums, net.params), (structures, net.params)):
        assert not _slow_in_loops(jax.make_jaxpr(function)(argument)), function
