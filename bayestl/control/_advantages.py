"""How much better decisions were than expected, and what they therefore count."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AdvantageWeights:
    """Made by :func:`advantage_weights`."""

    temperature: Any
    standardize: bool = dataclasses.field(metadata={"static": True})

    def __call__(self, advantages: Float[Array, " N"]) -> Float[Array, " N"]:
        """Weights of mean 1, (N,)."""
        if self.standardize:
            spread = jnp.std(advantages)
            advantages = jnp.where(spread > 0, advantages / jnp.where(spread > 0, spread, 1.0), 0.0)
        weights = jnp.exp((advantages - jnp.max(advantages)) / self.temperature)
        return weights / jnp.mean(weights)


def advantage_weights(temperature: Scalar, *, standardize: bool = True) -> AdvantageWeights:
    """Weights ``exp(A / tau)`` of decisions by their advantages A, scaled to mean 1.

    A small tau counts the best decisions alone; tau to infinity counts all alike, which is cloning one's own actions.
    Subtracting a number from all advantages changes nothing.

    Args:
        temperature: tau > 0.
        standardize: measure advantages in their own standard deviation in the rollout, so that a good tau, some 0.3 to
            1, does not depend on the size of the rewards.

    Raises:
        ValueError: a temperature that is not above 0.

    Reference:
        Peters and Schaal 2007, "Reinforcement Learning by Reward-Weighted Regression for Operational Space Control";
        Peng et al. 2019, "Advantage-Weighted Regression" (arXiv 1910.00177), equation 10.

    Example:
        >>> weigh = btl.control.advantage_weights(1.0, standardize=False)
        >>> print(weigh(jnp.log(jnp.array([1.0, 3.0]))).round(4))
        [0.5 1.5]
    """
    check_arguments(advantage_weights, locals())
    if _tree.is_concrete(temperature) and not float(temperature) > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0, and infinity counts all decisions alike")
    return AdvantageWeights(jnp.asarray(temperature, jnp.float32), standardize)


def advantages_of(
    rewards: Float[Array, "T E"],
    values: Float[Array, "T E"],
    next_values: Float[Array, "T E"],
    terminated: Any,
    truncated: Any,
    discount: Scalar,
    trace: Scalar,
) -> Float[Array, "T E"]:
    """``A_t = d_t + discount trace A_{t+1}``, with ``d_t = r_t + discount V(s_{t+1}) - V(s_t)``.

    V counts 0 after a termination, and itself after a truncation; the sum goes on over neither.

    Args:
        rewards: of T steps in E environments.
        values: V of what was seen before each step.
        next_values: V of what was seen after it, before any reset.
        terminated: (T, E).
        truncated: (T, E).
        discount: of later rewards, in [0, 1].
        trace: lambda in [0, 1]: 0 looks one step ahead, 1 to the end of the rollout.

    Reference:
        Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", equation 16.
    """
    surprise = rewards + discount * jnp.where(terminated, 0.0, next_values) - values
    goes_on = ~(terminated | truncated)

    def backwards(later: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        surprise, goes_on = now
        advantage = surprise + discount * trace * jnp.where(goes_on, later, 0.0)
        return advantage, advantage

    return jax.lax.scan(backwards, jnp.zeros_like(surprise[0]), (surprise, goes_on), reverse=True)[1]
