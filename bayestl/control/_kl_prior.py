"""A prior over what a policy does, not over its weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree, likelihoods
from bayestl._arguments import check_arguments
from bayestl._types import Apply, Inputs, Key, Likelihood, Net, Params, Scalar
from bayestl.control._policy import divergence


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PolicyPrior:
    """Made by :func:`kl_prior`."""

    source: Any
    state: Any
    observations: Any
    strength: Any
    likelihood: Any
    apply: Apply = dataclasses.field(metadata={"static": True})

    def log_prob(self, params: Params) -> jax.Array:
        """``-strength`` times the mean divergence, nats, without a normaliser."""
        policy, source = (
            self.likelihood(self.apply(p, self.state, self.observations, None)[0]) for p in (params, self.source)
        )
        return -self.strength * jnp.mean(divergence(source, policy))

    def sample(self, key: Key, num_samples: int) -> Params:
        """Not offered: the density has no normaliser.

        Raises:
            TypeError: always.
        """
        raise TypeError("a prior over what a policy does cannot be drawn from; draw from a Gaussian over its weights")


def kl_prior(
    net: Net, params: Params, observations: Inputs, strength: Scalar, likelihood: Likelihood | None = None
) -> PolicyPrior:
    """A prior that holds what a policy *does* near what its source does, ``-strength E_s KL(source(s) || policy(s))``.

    Weights may go where they like as long as the actions stay. It is a prior for methods that take any log density:
    MAP, VI, SGLD, SGHMC.

    Args:
        net: the policy's network.
        params: of the source policy.
        observations: (M, ...) where the two are compared, such as the inputs of :func:`demonstrations`.
        strength: how many decisions the source counts, > 0.
        likelihood: of the actions; None for :func:`bayestl.likelihoods.categorical`.

    Raises:
        ValueError: params that differ from the network's; a strength that is not above 0; no observations.

    Reference:
        Teh et al. 2017, "Distral: Robust Multitask Reinforcement Learning"; Levine 2018, arXiv 1805.00909.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 2))
        >>> prior = btl.control.kl_prior(net, net.params, jnp.ones((3, 4)), strength=100.0)
        >>> print(float(prior.log_prob(net.params)) == 0.0)
        True
    """
    check_arguments(kl_prior, locals())
    _tree.check_same_structure("params", params, "net.params", net.params, "give the source policy's parameters")
    if _tree.is_concrete(strength) and not float(strength) > 0:
        raise ValueError(f"strength is {strength}; it is a number of decisions, above 0")
    leaves = jax.tree.leaves(observations)
    if any(jnp.ndim(leaf) == 0 for leaf in leaves):
        raise ValueError("observations is a single number; give an array (M, ...), or a pytree of such")
    if not leaves or not len(leaves[0]):
        raise ValueError("the number of observations is 0; give at least one")
    likelihood = likelihoods.categorical() if likelihood is None else likelihood
    observations = jax.tree.map(jnp.asarray, observations)
    return PolicyPrior(params, net.state, observations, jnp.asarray(strength, jnp.float32), likelihood, net.apply)
