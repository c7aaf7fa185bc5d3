"""A prior's scale by the returns that are earned under it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import control

KEY = jax.random.key(0)
WRONG = {"logits": jnp.array([3.0, -3.0])}


def _reset(key, params):
    return jnp.ones(1), jnp.zeros(())


def _step(key, state, action, params):
    """One decision: action 1 earns 1."""
    return jnp.ones(1), state, jnp.float32(action), jnp.array(True), jnp.array(False)


def _logits(params, inputs):
    return jnp.broadcast_to(params["logits"], (len(inputs), 2))


NET = btl.nets.from_function(_logits, WRONG)
MADE = control.rollouts(NET, control.Environment(_reset, _step), 256, 1, 1.0)


def make(scale):
    joint = btl.LogJoint(NET, btl.likelihoods.categorical(), btl.gaussians.isotropic(WRONG, scale))
    return control.on_policy(btl.infer.proximal_map(joint, 0.5), MADE, passes=4, minibatches=1, accumulate=False)


def tune(scales, num_rollouts, **options):
    return control.tune_by_returns(KEY, make, jnp.array(scales), WRONG, MADE, num_rollouts=num_rollouts, **options)


def test_where_the_source_is_wrong_the_widest_prior_is_left():
    calls = []
    tuned = tune([0.001, 3.0, 0.01], 14, per_round=2, look=lambda done, posterior: calls.append((done, posterior)))
    assert tuned.index == 1
    # Three, then two, of them learn for two rollouts; the last has what is left of 14.
    assert sorted(tuned.rollouts) == [2, 4, 8]
    assert tuned.rollouts[1] == 8
    assert np.isnan(tuned.earned[1]).sum() == 1
    assert np.nanargmax(tuned.earned[1]) == 1
    assert float(tuned.posterior.params["logits"][1]) > 0 > WRONG["logits"][1]
    assert [done for done, _ in calls] == [3, 6, 8, 10, 11, 12, 13, 14]
    np.testing.assert_array_equal(calls[-1][1].params["logits"], tuned.posterior.params["logits"])


def test_one_setting_is_a_run_of_on_policy():
    tuned = tune([3.0], 5)
    assert tuned.earned.shape == (0,)
    assert tuned.rollouts.tolist() == [5]
    assert int(tuned.state.count) == 5


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="num_rollouts is 5, and choosing among 4 settings takes 6"):
        tune([0.1, 0.2, 0.3, 0.4], 5)
    with pytest.raises(ValueError, match="leading axes"):
        control.tune_by_returns(KEY, make, {"a": jnp.ones(2), "b": jnp.ones(3)}, WRONG, MADE, num_rollouts=9)
