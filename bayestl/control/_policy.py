"""Decisions of a network, and whether it fits an environment."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from bayestl._types import Key, Likelihood, Net, Params
from bayestl.control._environment import Environment, check_environment


def batched(observation: Any) -> Any:
    """One observation as inputs of a network, with a leading axis of 1."""
    return jax.tree.map(lambda x: x[None], observation)


def act(key: Key, net: Net, likelihood: Likelihood, params: Params, observations: Any) -> Any:
    """Decisions drawn from the policy, one for each of the observations."""
    return likelihood(net.apply(params, net.state, observations, None)[0]).sample(key)


def check_policy(net: Net, params: Params, likelihood: Likelihood, env: Environment) -> tuple[Any, Any]:
    """Raise where a policy does not fit an environment.

    Returns:
        Shapes and dtypes of one observation, and of one decision.

    Raises:
        TypeError: an environment without the signature.
        ValueError: observations that the network cannot be applied to; decisions of another kind than the environment
            takes; more choices of the network than the environment has actions cannot be seen.
    """
    key = jax.random.key(0)
    try:
        first = jax.eval_shape(env.reset, key, env.params)[0]
    except (TypeError, ValueError, LookupError, AttributeError):
        # Whatever is wrong, the check says it in a sentence.
        first = check_environment(env, jax.ShapeDtypeStruct((), jnp.int32))
    try:
        outputs = jax.eval_shape(lambda p, x: net.apply(p, net.state, batched(x), None)[0], params, first)
    except (TypeError, ValueError) as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in jax.tree.leaves(first))
        raise ValueError(
            f"the network cannot be applied to an observation of the environment, of shape {shapes}: {error}"
        ) from error
    try:
        actions = jax.eval_shape(lambda k, f: likelihood(f).sample(k), key, outputs)
    except (TypeError, ValueError, AttributeError) as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in jax.tree.leaves(outputs))
        raise ValueError(
            f"{type(likelihood).__name__} cannot draw actions from outputs of shape {shapes}: {error}; give the "
            "likelihood whose distribution the actions have, likelihoods.categorical() for a choice among several, "
            "likelihoods.normal(scale) for real ones"
        ) from error
    action = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), actions)
    return check_environment(env, action), action


def divergence(source: dist.Distribution, policy: dist.Distribution) -> jax.Array:
    """KL(source || policy) of every decision, (B,), nats."""
    if source.has_enumerate_support:
        choices = source.enumerate_support()  # (A, B)
        log_source, log_policy = jnp.asarray(source.log_prob(choices)), jnp.asarray(policy.log_prob(choices))
        # A choice that the source never takes counts nothing.
        each = jnp.where(log_source > -jnp.inf, jnp.exp(log_source) * (log_source - log_policy), 0.0)
        return jnp.sum(each, 0)
    return dist.kl_divergence(source, policy)
