"""What states are worth: a network of its own, fitted beside the policy by any method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Inference, Net, Params
from bayestl.control._policy import batched


class Critic(NamedTuple):
    """A value network and how it learns. Made by :func:`critic`.

    Attributes:
        net: observations (B, ...) to one number each.
        inference: the method that fits it to returns.
        starts: parameters where it could start instead of ``net.params``.
    """

    net: Net
    inference: Inference
    starts: tuple[Params, ...] = ()


def critic(net: Net, inference: Inference, *, starts: Sequence[Params] = ()) -> Critic:
    """What states are worth, learned beside the policy; from the source's own value network it transfers too.

    Its targets are discounted sums of rewards to come, in the units of the rewards. So a likelihood with noise of their
    size, ``likelihoods.normal(10.0)`` for returns of around 100, and a prior at the source's weights make it another
    transfer.

    Args:
        net: observations (B, ...) to outputs (B, 1) or (B,); it starts at ``net.params``.
        inference: around a log joint of ``net``, such as
            ``infer.map_estimate(LogJoint(net, likelihoods.normal(10.0), prior), optax.adam(1e-3))``.
        starts: other parameters where it could start, such as the source's beside new ones. The first rollout of
            :func:`on_policy` decides, before it is learned from and at no further step of the environment: by which of
            them the rewards to come, as far as they were seen, are most likely. With normal noise that is the smallest
            mean square of ``V(s_t) - discount^n V(s_{t+n}) - (r_t + ... + discount^(n-1) r_{t+n-1})``, where t + n is
            the end of the episode or of the rollout. ``history["critic_start"]`` says which it was.

    Raises:
        ValueError: starts that differ from the network's parameters.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 1))
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(10.0), None)
        >>> critic = btl.control.critic(net, btl.infer.map_estimate(joint, optax.adam(1e-3)))
    """
    check_arguments(critic, locals())
    for number, params in enumerate(starts):
        name = f"starts[{number}]"
        _tree.check_floating(name, params)
        _tree.check_same_structure(name, params, "net.params", net.params, "give parameters of this network")
    return Critic(net, inference, tuple(starts))


def values(net: Net, params: Params, observations: Any) -> jax.Array:
    """V of each observation, (B,)."""
    outputs = net.apply(params, net.state, observations, None)[0]
    return outputs.reshape(outputs.shape[0])


def check_critic(net: Net, observation: Any) -> tuple[int, ...]:
    """The shape of the outputs for one observation, (1,) or (1, 1).

    Raises:
        ValueError: observations that the network cannot be applied to, or more than one output.
    """
    try:
        outputs: Any = jax.eval_shape(
            lambda p, x: net.apply(p, net.state, batched(x), None)[0], net.params, observation
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"the critic's network cannot be applied to an observation: {error}") from error
    shape = getattr(outputs, "shape", None)
    if shape not in ((1,), (1, 1)):
        raise ValueError(f"the critic's network gives outputs of shape {shape} for one observation; give one number")
    return shape


def as_targets(goals: jax.Array, net: Net, observations: Any) -> jax.Array:
    """Returns (B,) in the shape of the network's outputs."""
    shape = jax.eval_shape(lambda x: net.apply(net.params, net.state, x, None)[0], observations).shape
    return jnp.reshape(goals, shape)
