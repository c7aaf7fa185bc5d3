"""What the prior of a rollout is: against modes in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import bayestl as btl
from bayestl import control

KEY = jax.random.key(0)


def _constant(params, inputs):
    return jnp.broadcast_to(params["mean"], inputs.shape[:1])


class _Ones:
    """Every action is 1, whatever the policy."""

    def __call__(self, outputs):
        return dist.Delta(jnp.ones_like(outputs))


def _ones_reset(key, params):
    return jnp.zeros(1), jnp.zeros(())


def _ones_step(key, state, action, params):
    return jnp.zeros(1), state, 0.0 * action, jnp.array(True), jnp.array(False)


ONES = control.Environment(_ones_reset, _ones_step)


def test_the_prior_is_held_against_all_rollouts_so_far():
    """A quadratic likelihood: the mode of n identical rollouts under N(0, 1) is n N / (n N + 1) times the mean."""
    net = btl.nets.from_function(_constant, {"mean": jnp.zeros(())})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), btl.gaussians.isotropic(net.params, 1.0), num_data=0.5)
    method = btl.infer.map_estimate(joint, optax.sgd(0.3))
    weigh = control.advantage_weights(jnp.inf)
    made = control.rollouts(net, ONES, 2, 1, 1.0, weigh=weigh, likelihood=_Ones())
    modes = {}
    for accumulate in (True, False):
        inference = control.on_policy(method, made, passes=60, minibatches=1, accumulate=accumulate)
        state, modes[accumulate] = inference.init(KEY, net.params), []
        step = jax.jit(inference.step)
        for seed in range(3):
            state, _ = step(jax.random.key(seed), state, None)
            modes[accumulate].append(float(state.method.params["mean"]))
    np.testing.assert_allclose(modes[True], [0.5 / 1.5, 1.0 / 2.0, 1.5 / 2.5], rtol=1e-4)
    np.testing.assert_allclose(modes[False], [0.5 / 1.5] * 3, rtol=1e-4)


def _last_point(posterior, decisions, count):
    return btl.gaussians.isotropic(posterior.params, jax.lax.rsqrt(1.0 + count))


def test_yesterdays_posterior_is_todays_prior():
    """A quadratic likelihood of N = 1/2 a rollout, a prior of precision n = 1, 2, 3 at the last mode: the distance to
    the mean of the data falls by n / (n + 1/2)."""
    net = btl.nets.from_function(_constant, {"mean": jnp.zeros(())})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=0.5)
    weigh = control.advantage_weights(jnp.inf)
    made = control.rollouts(net, ONES, 2, 1, 1.0, weigh=weigh, likelihood=_Ones())
    method = btl.infer.map_estimate(joint, optax.sgd(0.1))
    inference = control.on_policy(method, made, passes=60, minibatches=1, next_prior=_last_point)
    state, modes = inference.init(KEY, net.params), []
    step = jax.jit(inference.step)
    for seed in range(3):
        state, _ = step(jax.random.key(seed), state, None)
        modes.append(float(state.method.params["mean"]))
    np.testing.assert_allclose(modes, [1 - 2 / 3, 1 - 2 / 3 * 4 / 5, 1 - 2 / 3 * 4 / 5 * 6 / 7], rtol=1e-4)


def _level(params, inputs):
    return jnp.broadcast_to(params["level"], (len(inputs), 1))


def _by_action(key, state, action, params):
    """A reward of 3 for action 1, of 1 for action 0."""
    return jnp.zeros(1), state, 1.0 + 2.0 * action, jnp.array(True), jnp.array(False)


@pytest.mark.parametrize("critic_first", [False, True])
def test_the_critic_may_be_fitted_before_it_judges(critic_first):
    """Weights are 1 for a positive advantage and 0 for others. A critic at 5 is surprised by no reward; fitted to the
    rollout it expects 2, and decisions that earned 3 count alone."""
    net = btl.nets.from_function(_logits, {"logits": jnp.zeros(2)})
    value = btl.nets.from_function(_level, {"level": jnp.array(5.0)})
    joint = btl.LogJoint(value, btl.likelihoods.normal(1.0), None, num_data=64)
    critic = control.critic(value, btl.infer.map_estimate(joint, optax.sgd(0.5)))
    env = control.Environment(_ones_reset, _by_action)
    made = control.rollouts(net, env, 64, 1, 1.0, weigh=_positive, critic=critic)
    policy = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=64)
    method = btl.infer.map_estimate(policy, optax.sgd(1.0))
    inference = control.on_policy(method, made, passes=20, minibatches=1, critic_first=critic_first)
    state, info = inference.step(KEY, inference.init(KEY, net.params), None)
    assert 1.5 < float(state.critic.params["level"]) < 2.5
    odds = float(state.method.params["logits"][1] - state.method.params["logits"][0])
    assert (odds > 2.0) == critic_first
    assert (0.3 < float(info.effective) < 0.7) == critic_first


def _positive(advantages):
    return 1e-6 + (advantages > 0)


def _logits(params, inputs):
    return jnp.broadcast_to(params["logits"], (len(inputs), 2))
