"""Control: environments, what policies do and earn in them, and learning from that as inference."""

from bayestl.control._advantages import AdvantageWeights, advantage_weights
from bayestl.control._cartpole import CartPole, CartPoleState, cartpole
from bayestl.control._critic import Critic, critic
from bayestl.control._demonstrations import demonstrations
from bayestl.control._environment import Environment
from bayestl.control._first_returns import first_returns
from bayestl.control._gymnax import from_gymnax
from bayestl.control._kl_prior import PolicyPrior, kl_prior
from bayestl.control._on_policy import OnPolicyInfo, OnPolicyState, on_policy
from bayestl.control._returns import Returns, returns
from bayestl.control._rollouts import Collected, Played, Rollouts, World, rollouts
from bayestl.control._tune_by_returns import TunedByReturns, tune_by_returns
from bayestl.control._wrappers import map_observations, swap_actions, vary

__all__ = [
    "AdvantageWeights",
    "CartPole",
    "CartPoleState",
    "Collected",
    "Critic",
    "Environment",
    "OnPolicyInfo",
    "OnPolicyState",
    "Played",
    "PolicyPrior",
    "Returns",
    "Rollouts",
    "TunedByReturns",
    "World",
    "advantage_weights",
    "cartpole",
    "critic",
    "demonstrations",
    "first_returns",
    "from_gymnax",
    "kl_prior",
    "map_observations",
    "on_policy",
    "returns",
    "rollouts",
    "swap_actions",
    "tune_by_returns",
    "vary",
]
