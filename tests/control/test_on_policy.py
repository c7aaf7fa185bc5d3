"""Learning from one's own experience: against closed forms, and as a method among others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import bayestl as btl
from bayestl import control

KEY = jax.random.key(0)
PAYOFF = np.array([[0.0, 1.0], [0.6, -0.2]])


def _bandit_reset(key, params):
    state = jax.random.bernoulli(key).astype(jnp.int32)
    return jax.nn.one_hot(state, 2), state


def _bandit_step(key, state, action, params):
    """One decision in one of two states, then the end."""
    return jnp.zeros(2), state, params[state, action], jnp.array(True), jnp.array(False)


BANDIT = control.Environment(_bandit_reset, _bandit_step, jnp.asarray(PAYOFF, jnp.float32))


def _table(params, inputs):
    return inputs @ params["logits"]


TABLE = btl.nets.from_function(_table, {"logits": jnp.zeros((2, 2))})


def bandit_method(prior=None, rate=1.0):
    joint = btl.LogJoint(TABLE, btl.likelihoods.categorical(), prior)
    return btl.infer.map_estimate(joint, optax.sgd(rate))


def one_step(inference, made, start=TABLE.params, steps=1, **options):
    return btl.fit(KEY, inference, start, made.data, steps=steps, progress=False, **options)


def test_the_bandit_improves_by_exp_of_its_rewards_over_the_temperature():
    """Exact M-step: pi'(a|s) is proportional to pi(a|s) exp(r(s, a) / tau)."""
    tau = 0.5
    weigh = control.advantage_weights(tau, standardize=False)
    made = control.rollouts(TABLE, BANDIT, 20_000, 1, 1.0, weigh=weigh)
    result = one_step(control.on_policy(bandit_method(), made, passes=60, minibatches=1), made)
    logits = np.asarray(result.params["logits"], np.float64)
    odds = logits[:, 1] - logits[:, 0]
    expected = (PAYOFF[:, 1] - PAYOFF[:, 0]) / tau
    # The log odds of about 10,000 weighed draws of each state have a standard error of a little more than .03.
    np.testing.assert_allclose(odds, expected, atol=0.12)


def test_with_a_prior_the_step_is_the_mode_that_scipy_finds():
    prior = btl.gaussians.isotropic({"logits": jnp.zeros((2, 2))}, scale=0.1)
    made = control.rollouts(TABLE, BANDIT, 200, 1, 1.0, weigh=control.advantage_weights(0.5, standardize=False))
    sized = btl.infer.map_estimate(
        btl.LogJoint(TABLE, btl.likelihoods.categorical(), prior, num_data=200), optax.sgd(0.5)
    )
    inference = control.on_policy(sized, made, passes=300, minibatches=1)
    state = inference.init(jax.random.key(1), TABLE.params)
    key = jax.random.key(2)
    new, _ = jax.jit(inference.step)(key, state, None)
    # The same rollout again, and its weighted log posterior by scipy.
    collected = made.collect(jax.random.split(key, 4)[1], TABLE.params, state.world)[1].decisions
    inputs, actions, weights = (np.asarray(x, np.float64) for x in collected)

    def energy(flat):
        logits = inputs @ flat.reshape(2, 2)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        chosen = logs[np.arange(200), actions.astype(int)]
        return -200 * np.average(chosen, weights=weights) + 0.5 * np.sum(flat**2) / 0.1**2

    best = scipy.optimize.minimize(energy, np.zeros(4), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(np.asarray(new.method.params["logits"]).ravel(), best.x, atol=2e-4)


def test_an_infinite_temperature_clones_ones_own_actions():
    made = control.rollouts(TABLE, BANDIT, 30, 1, 1.0, weigh=control.advantage_weights(jnp.inf))
    method = btl.infer.map_estimate(
        btl.LogJoint(TABLE, btl.likelihoods.categorical(), None, num_data=30), optax.sgd(0.3)
    )
    inference = control.on_policy(method, made, passes=1, minibatches=1)
    state = inference.init(KEY, TABLE.params)
    new, _ = inference.step(KEY, state, None)
    keys = jax.random.split(KEY, 4)
    decisions = made.collect(keys[1], TABLE.params, state.world)[1].decisions
    cloned, _ = method.step(KEY, state.method, btl.Batch(decisions.inputs, decisions.targets))
    np.testing.assert_allclose(new.method.params["logits"], cloned.params["logits"], rtol=1e-6)


def test_as_the_scale_goes_to_zero_the_source_policy_stays():
    source = {"logits": jnp.array([[1.0, -1.0], [0.5, 2.0]])}
    joint = btl.LogJoint(TABLE, btl.likelihoods.categorical(), btl.gaussians.isotropic(source, scale=1e-4))
    made = control.rollouts(TABLE, BANDIT, 50, 1, 1.0)
    inference = control.on_policy(btl.infer.proximal_map(joint, 0.5), made, passes=3, minibatches=2)
    result = one_step(inference, made, source, steps=5)
    np.testing.assert_allclose(result.params["logits"], source["logits"], atol=1e-5)


@pytest.mark.optimized
def test_the_result_depends_on_the_key_alone_and_a_run_resumes_to_the_same_bits(tmp_path):
    net = btl.nets.mlp(KEY, (4, 8, 2), jnp.tanh)
    value = btl.nets.mlp(KEY, (4, 8, 1), jnp.tanh)
    prior = btl.gaussians.isotropic(net.params, scale=0.5)
    critic = control.critic(
        value, btl.infer.map_estimate(btl.LogJoint(value, btl.likelihoods.normal(10.0), None), optax.adam(1e-2))
    )
    made = control.rollouts(net, control.cartpole(), 4, 16, 0.95, critic=critic)
    method = btl.infer.map_estimate(btl.LogJoint(net, btl.likelihoods.categorical(), prior), optax.adam(1e-2))
    inference = control.on_policy(method, made, passes=2, minibatches=2)

    def run(steps=6, **options):
        return one_step(inference, made, net.params, steps=steps, **options)

    whole = run(chunk_size=2)
    states = [run(chunk_size=1).state]
    run(steps=4, chunk_size=2, checkpoint=btl.Checkpoint(tmp_path / "run"))
    states.append(run(chunk_size=2, checkpoint=btl.Checkpoint(tmp_path / "run")).state)
    for state in states:
        for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert np.any(np.asarray(whole.state.critic.params["head"]["kernel"]) != np.asarray(value.params["head"]["kernel"]))


@pytest.mark.parametrize("name", ["mean_field_vi", "ivon", "sghmc"])
def test_any_method_learns_the_bandit(name):
    prior = btl.gaussians.isotropic(TABLE.params, scale=3.0)
    joint = btl.LogJoint(TABLE, btl.likelihoods.categorical(), prior)
    method = {
        "mean_field_vi": lambda: btl.infer.mean_field_vi(joint, optax.adam(0.05)),
        "ivon": lambda: btl.infer.ivon(joint, 0.1, hessian_decay=0.99),
        "sghmc": lambda: btl.infer.sghmc(joint, 0.002, num_samples=20),
    }[name]()
    made = control.rollouts(TABLE, BANDIT, 64, 1, 1.0, weigh=control.advantage_weights(0.3, standardize=False))
    result = one_step(control.on_policy(method, made, passes=3, minibatches=2), made, steps=40)
    earned = control.returns(KEY, result.posterior, TABLE, BANDIT, 200, num_draws=5)
    random = PAYOFF.mean()
    assert earned.mean > random + 0.6 * (PAYOFF.max(-1).mean() - random)


def test_it_acts_with_draws_of_a_gaussian():
    wide = btl.gaussians.isotropic(TABLE.params, scale=20.0)
    joint = btl.LogJoint(TABLE, btl.likelihoods.categorical(), wide, num_data=8)
    inference = control.on_policy(
        btl.infer.mean_field_vi(joint, optax.sgd(0.0), initial_scale=20.0),
        control.rollouts(TABLE, BANDIT, 8, 1, 1.0),
        passes=1,
        minibatches=1,
    )
    state = inference.init(KEY, TABLE.params)
    rewards = [float(inference.step(jax.random.key(seed), state, None)[1].reward) for seed in range(12)]
    # One draw acts in all environments. At logits of size 20 it hardly ever takes another action in the same state, so
    # that rewards are those of four deterministic policies; a mean policy of zeros would give about the same each time.
    assert np.std(rewards) > 0.15


def _counting(params, state, inputs, key):
    """How often the network was applied to a minibatch, in its state; to the 8 observations of a step it is not."""
    return inputs @ params["logits"], {"count": state["count"] + (len(inputs) == 4)}


def test_the_state_of_a_network_goes_on_from_rollout_to_rollout():
    net = btl.Net(TABLE.params, {"count": jnp.zeros(())}, _counting)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None)
    made = control.rollouts(net, BANDIT, 8, 1, 1.0)
    inference = control.on_policy(btl.infer.map_estimate(joint, optax.sgd(0.1)), made, passes=3, minibatches=2)
    result = one_step(inference, made, steps=5)
    assert float(result.state.net_state["count"]) == 5 * 3 * 2


def test_a_learning_curve_of_many_seeds_is_that_of_each():
    made = control.rollouts(TABLE, BANDIT, 16, 1, 1.0)
    inference = control.on_policy(bandit_method(), made, passes=2)
    keys = jax.random.split(KEY, 16)
    many = btl.fit_many(keys, lambda _: inference, None, TABLE.params, made.data, steps=4, progress=False)
    assert many.history["episode_return"].shape == (16, 4)
    for seed in (0, 15):
        single = btl.fit(keys[seed], inference, TABLE.params, made.data, steps=4, progress=False)
        np.testing.assert_allclose(many.params["logits"][seed], single.params["logits"], rtol=1e-5)
        np.testing.assert_allclose(many.history["reward"][seed], single.history["reward"], rtol=1e-5)


def test_many_seeds_and_settings_in_one_program():
    made = control.rollouts(TABLE, BANDIT, 16, 1, 1.0)

    def make(scale):
        joint = btl.LogJoint(TABLE, btl.likelihoods.categorical(), btl.gaussians.isotropic(TABLE.params, scale))
        return control.on_policy(btl.infer.proximal_map(joint, 0.1), made, minibatches=2)

    scales = jnp.array([0.01, 3.0])
    many = btl.fit_many(jax.random.split(KEY, 2), make, scales, TABLE.params, made.data, steps=5, progress=False)
    sizes = np.abs(np.asarray(many.params["logits"])).max((1, 2))
    assert many.history["episode_return"].shape == (2, 5)
    assert sizes[0] < 0.1 * sizes[1]


def _level(params, inputs):
    return jnp.broadcast_to(params["level"], (len(inputs), 1))


@pytest.mark.parametrize(("step", "best"), [("endless", 10.0), ("one", 1.0)])
def test_the_first_rollout_decides_where_the_critic_starts(step, best):
    """A reward of 1 for ever is worth 1 / (1 - .9) = 10, and once it is worth 1."""
    function = _endless if step == "endless" else _once
    env = control.Environment(_bandit_reset, function)
    value = btl.nets.from_function(_level, {"level": jnp.array(4.0)})
    method = btl.infer.map_estimate(btl.LogJoint(value, btl.likelihoods.normal(1.0), None, num_data=12), optax.sgd(0.0))
    critic = control.critic(value, method, starts=[{"level": jnp.array(x)} for x in (10.0, 1.0)])
    made = control.rollouts(TABLE, env, 4, 3, 0.9, critic=critic)
    joint = btl.LogJoint(TABLE, btl.likelihoods.categorical(), None, num_data=12)
    inference = control.on_policy(btl.infer.map_estimate(joint, optax.sgd(1.0)), made, passes=1, minibatches=1)
    state = inference.init(KEY, TABLE.params)
    assert float(state.critic.params["level"]) == 4.0
    state, info = inference.step(KEY, state, None)
    assert float(state.critic.params["level"]) == best
    assert int(info.critic_start) == (1 if best == 10.0 else 2)
    # Later rollouts do not choose again.
    moved = state._replace(critic=state.critic._replace(params={"level": jnp.array(7.0)}))
    state, info = inference.step(KEY, moved, None)
    assert float(state.critic.params["level"]) == 7.0
    assert int(info.critic_start) == -1


def test_what_does_not_fit_is_refused():
    made = control.rollouts(TABLE, BANDIT, 10, 1, 1.0)
    with pytest.raises(ValueError, match="minibatches is 4, which does not divide the 10 decisions"):
        control.on_policy(bandit_method(), made)
    with pytest.raises(ValueError, match=r"discount is 1.5"):
        control.rollouts(TABLE, BANDIT, 10, 1, 1.5)
    with pytest.raises(ValueError, match=r"weigh makes shape .. of the advantages of 10 decisions"):
        control.rollouts(TABLE, BANDIT, 10, 1, 1.0, weigh=jnp.mean)
    with pytest.raises(ValueError, match=r"'logits' of shape .2, 2. is in rollouts.net.params and not in params"):
        one_step(control.on_policy(bandit_method(), made, minibatches=1), made, {"weights": jnp.zeros(2)})
    wide = btl.nets.mlp(KEY, (2, 3))
    joint = btl.LogJoint(wide, btl.likelihoods.normal(1.0), None)
    critic = control.critic(wide, btl.infer.map_estimate(joint, optax.sgd(0.1)))
    with pytest.raises(ValueError, match=r"starts.0..*give parameters of this network"):
        control.critic(wide, critic.inference, starts=[TABLE.params])
    with pytest.raises(ValueError, match=r"outputs of shape .1, 3. for one observation; give one number"):
        control.rollouts(TABLE, BANDIT, 10, 1, 1.0, critic=critic)


def _lost(key, state, action, params):
    return jnp.zeros(2), state, jnp.inf, jnp.array(True), jnp.array(False)


def _endless(key, state, action, params):
    return jax.nn.one_hot(state, 2), state, 1.0, jnp.array(False), jnp.array(False)


def _once(key, state, action, params):
    return jax.nn.one_hot(state, 2), state, 1.0, jnp.array(True), jnp.array(False)


def _negative(advantages):
    return advantages - 1.0


@pytest.mark.parametrize(
    ("step", "weigh", "words"),
    [(_lost, None, "rewards that are not finite"), (_bandit_step, _negative, "weights that are negative")],
    ids=["rewards", "weights"],
)
def test_the_first_rollout_is_looked_at(step, weigh, words):
    made = control.rollouts(TABLE, control.Environment(_bandit_reset, step, BANDIT.params), 4, 1, 1.0, weigh=weigh)
    with pytest.raises(ValueError, match=words):
        one_step(control.on_policy(bandit_method(), made), made)


def _count(key, state, action, params):
    """Four decisions an episode, of which the last earns what no learning can use once a few were played."""
    return jax.nn.one_hot(0, 2), state + 1, jnp.where(state >= 3, jnp.inf, 1.0), state >= 4, jnp.array(False)


@pytest.mark.filterwarnings("ignore:no episode ended:UserWarning")
def test_rewards_that_are_not_finite_later_stop_the_run_at_the_state_before():
    env = control.Environment(lambda key, params: (jax.nn.one_hot(0, 2), jnp.int32(0)), _count)
    made = control.rollouts(TABLE, env, 4, 2, 1.0)
    with pytest.warns(RuntimeWarning, match="not finite after step 2"):
        result = one_step(control.on_policy(bandit_method(), made), made, steps=4)
    assert np.isfinite(np.asarray(result.params["logits"])).all()
    assert len(result.history["reward"]) == 1


def test_episodes_that_do_not_end_are_told_where_no_critic_sees_beyond():
    made = control.rollouts(TABLE, control.Environment(_bandit_reset, _endless), 4, 2, 1.0)
    with pytest.warns(UserWarning, match="no episode ended within the 2 steps"):
        one_step(control.on_policy(bandit_method(), made), made)
