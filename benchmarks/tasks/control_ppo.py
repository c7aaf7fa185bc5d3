"""Proximal policy optimisation with a clipped objective: the usual way to train a policy, as a peer.

It is no likelihood, so it is not a method of the package; here it is an ``Inference`` only so that ``fit_many`` runs it
beside the others, on the same rollouts. Schulman et al. 2017, arXiv 1707.06347, with the usual settings for what is not
tuned here: clip .2, an entropy bonus of .01, half the squared error of the critic, gradients of norm .5 at most, and
advantages standardised in each minibatch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import bayestl as btl

CLIP, ENTROPY, CRITIC, GRADIENT_NORM = 0.2, 0.01, 0.5, 0.5


class State(NamedTuple):
    """Parameters of policy and critic, the optimizer's state, and where the environments stand."""

    params: Any
    opt_state: Any
    world: Any


class Info(NamedTuple):
    """The loss of the last minibatch, and the mean return of the episodes that ended last."""

    objective: jax.Array
    episode_return: jax.Array


def ppo(
    rollouts: btl.control.Rollouts, params: Any, rate: Any, passes: int, minibatches: int, standardize: bool = True
) -> btl.Inference:
    """PPO from ``params = {"policy": ..., "critic": ...}``.

    Args:
        rollouts: with a critic, of which the network is used; advantages come as its weights.
        params: where policy and critic start.
        rate: of Adam.
        passes: over the decisions of a rollout.
        minibatches: of a pass.
        standardize: advantages in each minibatch.
    """
    # The rollouts hand on advantages where they would hand on weights.
    rollouts = rollouts._replace(weigh=lambda advantages: advantages)
    critic_net = rollouts.critic.net if rollouts.critic is not None else rollouts.net
    optimizer = optax.chain(optax.clip_by_global_norm(GRADIENT_NORM), optax.adam(rate, eps=1e-5))

    def log_probs(policy: Any, inputs: Any, actions: Any) -> tuple[jax.Array, jax.Array]:
        logs = jax.nn.log_softmax(rollouts.net(policy, inputs))
        entropy = -jnp.sum(jnp.exp(logs) * logs, -1)
        return jnp.take_along_axis(logs, actions[:, None], 1)[:, 0], entropy

    def loss(params: Any, examples: Any) -> jax.Array:
        inputs, actions, advantages, old, goals = examples
        if standardize:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        new, entropy = log_probs(params["policy"], inputs, actions)
        ratio = jnp.exp(new - old)
        gain = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantages)
        error = jnp.mean((critic_net(params["critic"], inputs)[:, 0] - goals[:, 0]) ** 2)
        return -jnp.mean(gain) - ENTROPY * jnp.mean(entropy) + CRITIC * error

    def init(key: Any, _: Any) -> State:
        return State(params, optimizer.init(params), rollouts.start(key))

    def step(key: Any, state: State, _: Any) -> tuple[State, Info]:
        key_collect, key_order = jax.random.split(key)
        world, made = rollouts.collect(key_collect, state.params["policy"], state.world, state.params["critic"])
        inputs, actions, advantages = made.decisions
        old, _ = log_probs(state.params["policy"], inputs, actions)
        goals: Any = made.goals
        examples = (inputs, actions, advantages, old, goals.targets)
        order = jax.vmap(lambda k: jax.random.permutation(k, len(old)))(jax.random.split(key_order, passes))

        def update(carry: Any, rows: jax.Array) -> tuple[Any, jax.Array]:
            now, opt_state = carry
            value, gradient = jax.value_and_grad(loss)(now, jax.tree.map(lambda x: x[rows], examples))
            updates, opt_state = optimizer.update(gradient, opt_state, now)
            return (optax.apply_updates(now, updates), opt_state), value

        rows = order.reshape(passes * minibatches, -1)
        (now, opt_state), values = jax.lax.scan(update, (state.params, state.opt_state), rows)
        return State(now, opt_state, world), Info(values[-1], world.episode_return)

    def posterior(state: State) -> btl.Point:
        return btl.Point(state.params["policy"])

    return btl.Inference(init, step, posterior)
