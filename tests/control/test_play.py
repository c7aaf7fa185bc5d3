"""What policies do and earn."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import bayestl as btl
from bayestl import control

KEY = jax.random.key(0)
# Mean returns over 64 episodes of the last iterate of each run, actions drawn, as published with the policies.
NUM_PUBLISHED, NUM_EPISODES = 64, 256
PUBLISHED = {
    "source": ({}, [500, 492, 500, 500, 497, 500]),
    "length": ({"length": 2.5}, [467, 91, 500, 35, 314, 500]),
    "gravity": ({"gravity": 30.0}, [223, 193, 307, 496, 464, 455]),
    "heavy": ({"masscart": 2.0, "masspole": 0.5, "force": 3.0}, [343, 92, 371, 191, 272, 492]),
    "swapped": (None, [9, 10, 9, 9, 10, 9]),
}


def _view(observation):
    return observation * jnp.array([1.0, 1.0, 10.0, 1.0])


class _Given(NamedTuple):
    """Policies with a leading axis, in place of draws."""

    policies: dict

    def sample(self, key, num_samples):
        return self.policies


def published_policies(data_dir):
    params = {"dense_0": {}, "dense_1": {}, "head": {}}
    with np.load(data_dir / "control" / "cartpole_source_policies.npz", allow_pickle=False) as arrays:
        for name in arrays:
            network, layer, leaf = name.split("/")
            if network == "policy":
                params[layer][leaf] = jnp.asarray(arrays[name][:, -1])
    return _Given(params)


def test_published_policies_earn_what_is_published(data_dir):
    """Differences of two means are normal, their standard error known from the spread of our own episodes. Of the 30 a
    binomial number is beyond two standard errors; none may be beyond four.

    Where all of our episodes are equal, the spread is at most what the table's mean leaves to returns in [0, 500].
    """
    net = btl.nets.mlp(KEY, (4, 32, 32, 2), jnp.tanh)
    policies = published_policies(data_dir)
    plain = control.map_observations(control.cartpole(), _view)
    distances = []
    for number, (changes, published) in enumerate(PUBLISHED.values()):
        env = control.swap_actions(plain) if changes is None else control.vary(plain, **changes)
        earned = control.returns(jax.random.key(number), policies, net, env, NUM_EPISODES, num_draws=6)
        published = np.array(published, float)
        spread = earned.episodes.std(axis=1, ddof=1)
        spread = np.where(spread > 0, spread, np.sqrt(published * (500 - published)))
        error = spread * np.sqrt(1 / NUM_EPISODES + 1 / NUM_PUBLISHED)
        # The table is rounded to whole numbers.
        difference = np.maximum(np.abs(earned.per_draw - published) - 0.5, 0.0)
        distances.append(np.divide(difference, error, out=np.where(difference > 0, np.inf, 0.0), where=error > 0))
    distances = np.concatenate(distances)
    most = scipy.stats.binom.ppf(0.999, len(distances), 2 * scipy.stats.norm.sf(2))
    assert np.sum(distances > 2) <= most
    assert distances.max() < 4


def _reset(key, params):
    return jnp.ones(1), jnp.zeros((), jnp.int32)


def _coin(key, state, action, params):
    """Three steps whose reward is the action."""
    return jnp.ones(1), state + 1, jnp.float32(action), state >= 2, jnp.array(False)


COIN = control.Environment(_reset, _coin)


def _table(params, inputs):
    return jnp.broadcast_to(params["logits"], (len(inputs), 2))


def coin_net(logit):
    return btl.nets.from_function(_table, {"logits": jnp.array([0.0, logit])})


def test_returns_of_a_coin_have_their_binomial_mean_and_error():
    net = coin_net(np.log(3.0))
    earned = control.returns(KEY, btl.Point(net.params), net, COIN, 4000, max_steps=10)
    assert earned.episodes.shape == (1, 4000)
    deviation = np.sqrt(3 * 0.75 * 0.25)
    assert earned.standard_error == pytest.approx(deviation / np.sqrt(4000), rel=0.05)
    assert abs(earned.mean - 3 * 0.75) < 4 * deviation / np.sqrt(4000)


def test_returns_over_draws():
    net = coin_net(0.0)
    draws = btl.Samples({"logits": jnp.array([[0.0, 50.0], [50.0, 0.0]])}, jnp.zeros(2))
    earned = control.returns(KEY, draws, net, COIN, 3, num_draws=40, max_steps=10)
    assert set(earned.per_draw) == {0.0, 3.0}
    assert earned.standard_error == pytest.approx(earned.per_draw.std(ddof=1) / np.sqrt(40))
    assert 0.3 < earned.mean / 3 < 0.7


def test_demonstrations_are_whole_episodes_of_the_policy():
    data = control.demonstrations(KEY, coin_net(np.log(3.0)), COIN, 500, max_steps=10)
    assert data.inputs.shape == (1500, 1)
    assert abs(float(data.targets.mean()) - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 1500)


def test_episodes_that_do_not_end_are_told():
    with pytest.warns(UserWarning, match="5 of 5 episodes had not ended after max_steps=2"):
        data = control.demonstrations(KEY, coin_net(0.0), COIN, 5, max_steps=2)
    assert len(data.inputs) == 10
    net = coin_net(0.0)
    with pytest.warns(UserWarning, match="5 of 5 episodes had not ended"):
        control.returns(KEY, btl.Point(net.params), net, COIN, 5, max_steps=2)


def _broken(key, state, action, params):
    return jnp.ones(1), state + 1, jnp.nan, state >= 2, jnp.array(False)


def test_rewards_that_are_not_finite_are_refused():
    net = coin_net(0.0)
    with pytest.raises(ValueError, match="rewards that are not finite"):
        control.returns(KEY, btl.Point(net.params), net, control.Environment(_reset, _broken), 2, max_steps=4)


def test_networks_and_likelihoods_that_do_not_fit_are_refused():
    net = btl.nets.mlp(KEY, (7, 2))
    with pytest.raises(ValueError, match=r"cannot be applied to an observation of the environment, of shape .4,."):
        control.returns(KEY, btl.Point(net.params), net, control.cartpole(), 2)
    with pytest.raises(ValueError, match="num_episodes is 0"):
        control.demonstrations(KEY, coin_net(0.0), COIN, 0)


def test_a_posterior_over_another_network_is_refused():
    other = btl.Point({"logits": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"'logits': .3,. against .2,.; give a posterior over its parameters"):
        control.returns(KEY, other, coin_net(0.0), COIN, 2)


def test_first_returns_count_all_rewards_for_each_episode_that_ends():
    """Episodes of three steps: in four environments and 30 steps, 40 end, and each earns three times the action."""
    net = coin_net(0.0)
    made = control.rollouts(net, COIN, 4, 30, 1.0)
    policies = {"always": {"logits": jnp.array([0.0, 60.0])}, "never": {"logits": jnp.array([60.0, 0.0])}}
    assert control.first_returns(KEY, made, policies) == {"always": 3.0, "never": 0.0}
    with pytest.raises(ValueError, match="policies is empty"):
        control.first_returns(KEY, made, {})
    with pytest.raises(ValueError, match="give a policy of this network"):
        control.first_returns(KEY, made, {"other": {"weights": jnp.zeros(2)}})
