"""Environments: the dynamics of CartPole, those of gymnax, variations, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import control

KEY = jax.random.key(0)


def in_float64(state, action, gravity=9.8, cart=1.0, pole=0.1, length=0.5, force=10.0):
    """One Euler step of the equations of motion, as Barto, Sutton and Anderson give them (Florian's signs)."""
    x, v, angle, spin = state
    push = force if action else -force
    mass = cart + pole
    inner = (push + pole * length * spin**2 * math.sin(angle)) / mass
    angular = (gravity * math.sin(angle) - math.cos(angle) * inner) / (
        length * (4 / 3 - pole * math.cos(angle) ** 2 / mass)
    )
    linear = inner - pole * length * angular * math.cos(angle) / mass
    return np.array([x + 0.02 * v, v + 0.02 * linear, angle + 0.02 * spin, spin + 0.02 * angular])


@pytest.mark.parametrize(
    "changes", [{}, {"gravity": 30.0, "length": 2.5}, {"masscart": 2.0, "masspole": 0.5, "force": 3.0}]
)
def test_cartpole_follows_the_equations_of_motion(changes):
    env = control.vary(control.cartpole(), **changes)
    names = {"masscart": "cart", "masspole": "pole"}
    expected_changes = {names.get(name, name): value for name, value in changes.items()}
    observation, state = env.reset(KEY, env.params)
    expected = np.asarray(observation, np.float64)
    step = jax.jit(env.step)
    for number in range(12):
        action = int(number % 3 == 0)
        observation, state, reward, terminated, truncated = step(KEY, state, action, env.params)
        expected = in_float64(expected, action, **expected_changes)
        np.testing.assert_allclose(observation, expected, atol=2e-5)
        assert reward == 1.0
        assert not truncated
        assert bool(terminated) == bool(abs(expected[2]) > math.radians(12))


def test_an_episode_is_cut_short_at_its_limit():
    env = control.vary(control.cartpole(), max_steps=2)
    _, state = env.reset(KEY, env.params)
    ends = []
    for action in (0, 1):
        *_, state, _, terminated, truncated = env.step(KEY, state, action, env.params)
        ends.append((bool(terminated), bool(truncated)))
    assert ends == [(False, False), (False, True)]


def as_gymnax():
    gymnax = pytest.importorskip("gymnax", reason="gymnax, which pins JAX, is not installed")
    return gymnax.make("CartPole-v1")


@pytest.mark.optimized
def test_cartpole_equals_gymnax_bit_for_bit_over_a_thousand_steps():
    env, params = as_gymnax()
    theirs, ours = control.from_gymnax(env, params), control.cartpole()
    actions = jax.random.bernoulli(KEY, 0.5, (1000,)).astype(jnp.int32)

    def played(one, params):
        def step(state, now):
            action, key = now
            observation, state, reward, terminated, truncated = one.step(key, state, action, params)
            fresh = one.reset(key, params)[1]
            over = terminated | truncated
            state = jax.tree.map(lambda a, b: jnp.where(over, a, b), fresh, state)
            return state, (observation, reward, terminated, truncated)

        return jax.lax.scan(step, one.reset(KEY, params)[1], (actions, jax.random.split(KEY, 1000)))[1]

    for a, b in zip(
        jax.jit(lambda p: played(theirs, p))(theirs.params),
        jax.jit(lambda p: played(ours, p))(ours.params),
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_what_gymnax_stores_twice_follows_the_masses():
    env, params = as_gymnax()
    varied = control.vary(control.from_gymnax(env, params), masspole=0.5, length=2.0).params
    assert float(varied.total_mass) == pytest.approx(1.5)
    assert float(varied.polemass_length) == pytest.approx(1.0)
    given = control.vary(control.from_gymnax(env, params), masspole=0.5, total_mass=7.0).params
    assert float(given.total_mass) == 7.0


def test_swapped_actions_do_what_the_other_did():
    env = control.cartpole()
    swapped = control.swap_actions(env)
    _, state = env.reset(KEY, env.params)
    for action in (0, 1):
        np.testing.assert_array_equal(
            env.step(KEY, state, action, env.params)[0], swapped.step(KEY, state, 1 - action, swapped.params)[0]
        )


def test_observations_are_seen_through_a_function():
    env = control.cartpole()
    scaled = control.map_observations(env, _ten_times)
    np.testing.assert_array_equal(scaled.reset(KEY, env.params)[0], 10 * env.reset(KEY, env.params)[0])
    _, state = env.reset(KEY, env.params)
    np.testing.assert_array_equal(
        scaled.step(KEY, state, 1, env.params)[0], 10 * env.step(KEY, state, 1, env.params)[0]
    )


def _ten_times(observation):
    return 10 * observation


def _reset(key, params):
    return jnp.zeros(2), jnp.zeros(())


def _step(key, state, action, params):
    return jnp.zeros(2), state, 0.0, jnp.array(True), jnp.array(False)


@pytest.mark.parametrize(
    ("env", "error", "words"),
    [
        (control.Environment(lambda key, params: jnp.zeros(2), _step), TypeError, "reset.* a .*observation, state"),
        (control.Environment(_reset, lambda *a: _step(*a)[:3]), TypeError, "a tuple of 3.*from_gymnax"),
        (
            control.Environment(_reset, lambda *a: (jnp.zeros(3), *_step(*a)[1:])),
            ValueError,
            "observation of env.reset has float32.2. and that of env.step float32.3.",
        ),
        (
            control.Environment(_reset, lambda *a: (*_step(*a)[:2], jnp.zeros(2), *_step(*a)[3:])),
            ValueError,
            "reward of env.step has float32.2.; it must be a single number",
        ),
        (
            control.Environment(_reset, lambda *a: (*_step(*a)[:3], jnp.array(1), jnp.array(False))),
            ValueError,
            r"terminated of env.step has int32..; it must be a truth value",
        ),
        (
            control.Environment(lambda key, params: params["start"], _step, {}),
            TypeError,
            r"env.reset cannot be traced as reset.key, params. .*start",
        ),
        ("CartPole-v1", TypeError, "env is 'CartPole-v1'; give an Environment"),
    ],
    ids=["reset", "step", "observation", "reward", "terminated", "params", "name"],
)
def test_environments_without_the_signature_are_refused(env, error, words):
    net = btl.nets.mlp(KEY, (2, 2))
    with pytest.raises(error, match=words):
        control.rollouts(net, env, 2, 2, 0.9)


def test_fields_and_orders_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="no weight; its params are gravity"):
        control.vary(control.cartpole(), weight=1.0)
    with pytest.raises(TypeError, match="tuple without named fields"):
        control.vary(control.Environment(_reset, _step), weight=1.0)
    with pytest.raises(ValueError, match=r"give each of 0, ..., 1 once"):
        control.swap_actions(control.cartpole(), (0, 0))
    with pytest.raises(TypeError, match=r"gymnax 1.0 or newer"):
        control.from_gymnax(control.cartpole())
