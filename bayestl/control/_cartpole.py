"""A pole on a cart, the common first task of control."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl._types import Key
from bayestl.control._environment import Environment

# Barto, Sutton and Anderson 1983, with the numbers of Gym's CartPole-v1.
_SECONDS = 0.02
_WIDEST_ANGLE = 12 * 2 * jnp.pi / 360
_WIDEST_PLACE = 2.4
_START = 0.05


class CartPole(NamedTuple):
    """What the motion depends on, in SI units. The fields that :func:`vary` changes.

    Attributes:
        gravity: m / s^2.
        masscart: kg.
        masspole: kg.
        total_mass: of cart and pole, kg; :func:`vary` keeps it in step.
        length: half the length of the pole, m.
        polemass_length: mass times half length of the pole, kg m; :func:`vary` keeps it in step.
        force: of a push, N.
        max_steps: after how many steps an episode is cut short.
    """

    gravity: Any = 9.8
    masscart: Any = 1.0
    masspole: Any = 0.1
    total_mass: Any = 1.0 + 0.1
    length: Any = 0.5
    polemass_length: Any = 0.05
    force: Any = 10.0
    max_steps: Any = 500


class CartPoleState(NamedTuple):
    """Where cart and pole are (m, m/s, rad, rad/s), and the number of steps."""

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array
    time: jax.Array


def cartpole() -> Environment:
    """A pole that stands on a cart, which is pushed to the left (action 0) or to the right (1); a reward of 1 a step.

    An episode ends when the pole leans by more than 12 degrees or the cart leaves the track, and is cut short after 500
    steps. Observations are float32 (4,): place and speed of the cart, angle and angular speed of the pole. The dynamics
    are those of CartPole-v1: Euler steps of 0.02 s.

    Reference:
        Barto, Sutton and Anderson 1983, "Neuronlike Adaptive Elements That Can Solve Difficult Learning Control
        Problems".

    Example:
        >>> env = btl.control.vary(btl.control.cartpole(), length=2.5)
        >>> print(env.params.length)
        2.5
    """
    return Environment(_reset, _step, CartPole(*(jnp.asarray(x) for x in CartPole())))


def _reset(key: Key, params: CartPole) -> tuple[Float[Array, " 4"], CartPoleState]:
    start = jax.random.uniform(key, minval=-_START, maxval=_START, shape=(4,))
    state = CartPoleState(start[0], start[1], start[2], start[3], jnp.zeros((), jnp.int32))
    return _observation(state), state


def _step(key: Key, state: CartPoleState, action: Any, params: CartPole) -> tuple[Any, ...]:
    reward = 1.0 - _is_over(state)
    force = params.force * action - params.force * (1 - action)
    cos, sin = jnp.cos(state.theta), jnp.sin(state.theta)
    push = (force + params.polemass_length * state.theta_dot**2 * sin) / params.total_mass
    angular = (params.gravity * sin - cos * push) / (
        params.length * (4.0 / 3.0 - params.masspole * cos**2 / params.total_mass)
    )
    linear = push - params.polemass_length * angular * cos / params.total_mass
    state = CartPoleState(
        state.x + _SECONDS * state.x_dot,
        state.x_dot + _SECONDS * linear,
        state.theta + _SECONDS * state.theta_dot,
        state.theta_dot + _SECONDS * angular,
        state.time + 1,
    )
    return _observation(state), state, reward, _is_over(state), state.time >= params.max_steps


def _is_over(state: CartPoleState) -> jax.Array:
    return (jnp.abs(state.x) > _WIDEST_PLACE) | (jnp.abs(state.theta) > _WIDEST_ANGLE)


def _observation(state: CartPoleState) -> Float[Array, " 4"]:
    return jnp.stack(state[:4])
