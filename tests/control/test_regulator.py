"""The linear-quadratic regulator: returns and improvement against their closed forms."""

import warnings

import jax
import jax.numpy as jnp
import optax
import pytest

import bayestl as btl
from bayestl import control

KEY = jax.random.key(0)

# The linear-quadratic regulator: s' = a s + b u, reward -(q s^2 + r u^2), policy u ~ N(-k s, spread^2).
A, B, Q, R, DISCOUNT, GAIN, SPREAD = 0.9, 0.5, 1.0, 0.3, 0.8, 0.2, 0.5


def _linear_reset(key, params):
    state = jax.random.normal(key, (1,))
    return state, state


def _linear_step(key, state, action, params):
    reward = -(Q * state[0] ** 2 + R * action[0] ** 2)
    new = A * state + B * action
    return new, new, reward, jnp.array(False), jnp.array(False)


LINEAR = control.Environment(_linear_reset, _linear_step)


def _gain(params, inputs):
    return -params["gain"] * inputs


def _value(params, inputs):
    return -params["curvature"] * inputs[:, 0] ** 2 - params["level"]


REGULATOR = btl.nets.from_function(_gain, {"gain": jnp.array(GAIN)})


def closed_form_value(gain):
    """V(s) = -p s^2 - c of the policy with this gain, by its fixed point."""
    closed = A - B * gain
    curvature = (Q + R * gain**2) / (1 - DISCOUNT * closed**2)
    level = (R + DISCOUNT * curvature * B**2) * SPREAD**2 / (1 - DISCOUNT)
    return curvature, level


def test_returns_of_the_regulator_are_those_of_its_moments():
    second, expected = 1.0, 0.0
    for _ in range(6):
        expected -= Q * second + R * (GAIN**2 * second + SPREAD**2)
        second = (A - B * GAIN) ** 2 * second + B**2 * SPREAD**2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        earned = control.returns(
            KEY,
            btl.Point(REGULATOR.params),
            REGULATOR,
            LINEAR,
            8000,
            likelihood=btl.likelihoods.normal(SPREAD),
            max_steps=6,
        )
    assert abs(earned.mean - expected) < 4 * earned.standard_error


def test_the_regulator_improves_as_its_closed_form_says():
    """With the policy's own value as critic and one step of look-ahead, ``pi exp(A / tau)`` is a normal policy again:
    its precision and gain follow from the quadratic A."""
    curvature, level = closed_form_value(GAIN)
    tau = 2.0
    likelihood = btl.likelihoods.normal(SPREAD)
    value = btl.nets.from_function(_value, {"curvature": jnp.array(curvature), "level": jnp.array(level)})
    critic = control.critic(
        value, btl.infer.map_estimate(btl.LogJoint(value, btl.likelihoods.normal(1.0), None), optax.sgd(0.0))
    )
    weigh = control.advantage_weights(tau, standardize=False)
    made = control.rollouts(
        REGULATOR, LINEAR, 20_000, 1, DISCOUNT, weigh=weigh, critic=critic, trace=0.0, likelihood=likelihood
    )
    joint = btl.LogJoint(REGULATOR, likelihood, None)
    # The loss is quadratic in the gain; this rate is a damped Newton step of it.
    method = btl.infer.map_estimate(joint, optax.sgd(0.1))
    inference = control.on_policy(method, made, passes=60, minibatches=1)
    result = btl.fit(KEY, inference, REGULATOR.params, made.data, steps=1, progress=False)
    ahead = DISCOUNT * curvature
    precision = 1 / SPREAD**2 + 2 * (R + ahead * B**2) / tau
    expected = (GAIN / SPREAD**2 + 2 * ahead * A * B / tau) / precision
    assert expected - GAIN > 0.1  # there is something to learn
    # Weights correlate with s: the fitted gain is that of the weighted regression, here of 20,000 decisions.
    assert abs(float(result.params["gain"]) - expected) < 0.02
    # As tau goes to 0 this is Howard's policy improvement, ahead a b / (r + ahead b^2).
    assert expected < ahead * A * B / (R + ahead * B**2)


def test_real_actions_under_a_likelihood_of_choices_are_refused():
    net = btl.nets.mlp(KEY, (1, 3))
    with pytest.raises(TypeError, match=r"env.step cannot be traced .* for the actions of the likelihood, int32.."):
        control.rollouts(net, LINEAR, 2, 2, 0.9)
