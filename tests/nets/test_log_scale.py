"""Learned observation noise on top of a network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import nets

INPUTS = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)


def base() -> nets.Net:
    return nets.mlp(jax.random.key(0), (3, 4, 2))


@pytest.mark.parametrize("initial_scale", [0.25, np.array([0.25, 4.0])])
def test_outputs_are_location_and_log_scale(initial_scale):
    net = nets.with_log_scale(base(), initial_scale)
    location, log_scale = net(net.params, INPUTS)
    np.testing.assert_array_equal(location, base()(base().params, INPUTS))
    # One rounding of the log, whose size is at most 1.4, in float32.
    np.testing.assert_allclose(log_scale, np.broadcast_to(np.log(initial_scale), (5, 2)), rtol=2e-7)
    assert net.params["log_scale"].shape == np.shape(initial_scale)


def test_gradient_of_a_shared_scale_sums_over_its_uses():
    net = nets.with_log_scale(base(), 1.0)
    gradient = jax.grad(lambda p: net(p, INPUTS)[1].sum())(net.params)
    assert gradient["log_scale"] == 10
    assert jax.tree.structure(gradient["net"]) == jax.tree.structure(base().params)


def test_state_passes_through():
    counter = nets.Net({"w": jnp.ones(())}, jnp.zeros(()), lambda p, s, x, key: (p["w"] * x, s + 1))
    net = nets.with_log_scale(counter, 2.0)
    _, state = net.apply(net.params, net.state, INPUTS, jax.random.key(0))
    assert state == 1


def test_a_net_made_again_does_not_compile_again():
    traces = []

    @jax.jit
    def outputs(net):
        traces.append(1)
        return net(net.params, INPUTS)

    for scale in (1.0, 2.0):
        outputs(nets.with_log_scale(base(), scale))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (0.0, r"initial_scale .*has 1 of 1 values <= 0 .*a standard deviation must be positive"),
        (np.array([1.0, -1.0]), r"initial_scale .*has 1 of 2 values <= 0 \(smallest -1\)"),
        (np.inf, r"initial_scale .*has 1 non-finite of 1 values"),
        (np.array([1.0, np.nan]), r"initial_scale .*has 1 non-finite of 2 values"),
    ],
)
def test_scales_that_are_not_positive(scale, message):
    with pytest.raises(ValueError, match=message):
        nets.with_log_scale(base(), scale)


def test_other_refusals():
    with pytest.raises(ValueError, match=r"initial_scale has shape \(1, 2\); give a scalar, or one number per output"):
        nets.with_log_scale(base(), np.ones((1, 2)))
    with pytest.raises(TypeError, match="net is a dict; give a Net"):
        nets.with_log_scale(base().params)
