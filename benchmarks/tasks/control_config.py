"""What the task of control runs: its methods by name, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.tasks.control_worlds import TARGETS

SCRATCH, SOURCE, WITH_CRITIC = "from scratch", "source as initial policy", "source with its critic"
L2_SP, LEARNED, KL, VI = "L2-SP", "learned prior, iterates", "KL to the source", "L2-SP, VI (Thompson)"
PPO_SCRATCH, PPO_SOURCE, PPO_CRITIC = "PPO from scratch", "PPO, source policy", "PPO, source with its critic"
CHOSEN = "L2-SP or scratch, by first returns"
# The one of ``control_sequential`` that the figure shows.
SEQUENTIAL = "source, critic first, last posterior as prior"
# Those of a line differ in where they start alone, and are one program.
PROGRAMS = (
    (SCRATCH, SOURCE, WITH_CRITIC),
    (L2_SP,),
    (LEARNED,),
    (KL,),
    (VI,),
    (PPO_SCRATCH, PPO_SOURCE, PPO_CRITIC),
)
RUN = tuple(method for methods in PROGRAMS for method in methods)
METHODS = (*RUN[:7], CHOSEN, *RUN[7:])
TUNED_EM, TUNED_PPO = "settings of expectation-maximisation", "settings of PPO"
READ_AT = (0, 1, 5, 20)  # thousands of steps
PROBE = 64  # steps of each environment before a start is chosen


class Config(NamedTuple):
    """What is run.

    Attributes:
        targets: names of those that are run.
        seeds: seed i starts at the source's run i, of which there are 6.
        rollouts: of every run.
        num_envs: environments side by side.
        num_steps: of each in one rollout.
        discount: of rewards.
        scales: standard deviations of priors around the source's weights.
        factors: on the covariance that the source's iterates give.
        strengths: decisions that the source counts in the prior over actions.
        temperatures: of advantages; chosen on the source's task, as the rates.
        rates: learning rates of policy and critic.
        passes: over the decisions of a rollout, for the shared choice.
        noise: standard deviation of returns around the critic.
        episodes: whole episodes for every point of a learning curve.
    """

    targets: tuple[str, ...] = TARGETS
    seeds: int = 6
    rollouts: int = 20
    num_envs: int = 8
    num_steps: int = 128
    discount: float = 0.99
    scales: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    factors: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    strengths: tuple[float, ...] = (30.0, 100.0, 300.0, 1000.0)
    temperatures: tuple[float, ...] = (0.25, 0.5, 1.0)
    rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    passes: tuple[int, ...] = (10, 20)
    noise: float = 10.0
    episodes: int = 16


class Shared(NamedTuple):
    """What all runs of one kind share, chosen on the source's task."""

    temperature: float
    rate: float
    passes: int


class Chosen(NamedTuple):
    """What an earlier run chose, so that a short one need not search.

    Attributes:
        shared: kind to what all its runs share.
        settings: target and method to the setting.
    """

    shared: Mapping[str, Shared]
    settings: Mapping[tuple[str, str], Any]


class Member(NamedTuple):
    """One run among those of a program."""

    method: str
    seed: int
    setting: float
    shared: Shared


def grid_of(config: Config, method: str) -> tuple[float, ...]:
    """The settings of a method."""
    return {L2_SP: config.scales, VI: config.scales, LEARNED: config.factors, KL: config.strengths}.get(method, (0.0,))
