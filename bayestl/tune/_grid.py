"""Many settings of a method, judged by data that none of them has seen; the poor ones given up early."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Data, Inference, Key, NetState, Params, Posterior
from bayestl.training import ManyResult, Progress, fit_many
from bayestl.tune._grid_notes import notes_of


class Rung(NamedTuple):
    """One round of a grid.

    Attributes:
        budget: steps of each run.
        settings: the numbers of those that ran.
        scores: of each at its best step, mean over runs.
    """

    budget: int
    settings: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a grid has found: S settings, R runs of each with keys (and starts, and data) of their own, read at T steps.

    Attributes:
        settings: name to values, (S,).
        read_at: the steps, (T,).
        scores: mean score per example, nats, (R, T, S); NaN for settings that were given up, and runs that failed.
        errors: standard errors of the mean over runs, (T, S); with one run, over the examples that it was scored on,
            and NaN where ``score`` gave their mean alone.
        rungs: the rounds of halving, the last one that of ``scores``.
        failed: (R, S), the step at which a run became non-finite, or -1.
        steps: gradient steps of all runs of all rounds.
        seconds: of all, without compilation.
        compile_seconds: of compilation.
    """

    settings: dict[str, np.ndarray]
    read_at: tuple[int, ...]
    scores: np.ndarray
    errors: np.ndarray
    rungs: tuple[Rung, ...]
    failed: np.ndarray
    steps: int
    seconds: float
    compile_seconds: float
    _snapshots: tuple[tuple[Any, Any], ...] = dataclasses.field(repr=False)

    @property
    def curve(self) -> np.ndarray:
        """Mean score over runs, (T, S)."""
        return self.scores.mean(0)

    def best(self, run: int | None = None) -> tuple[int, int]:
        """The numbers of the step count and the setting that score best: on average over runs, or in one of them.

        Raises:
            ValueError: no score is finite.
        """
        scores = self.curve if run is None else self.scores[run]
        if not np.isfinite(scores).any():
            raise ValueError("no setting has a finite score: all runs failed; try smaller learning rates")
        place = np.unravel_index(int(np.nanargmax(np.where(np.isfinite(scores), scores, np.nan))), scores.shape)
        return int(place[0]), int(place[1])

    def setting(self, run: int | None = None) -> dict[str, float]:
        """The best setting by name, and the ``steps`` at which it was read."""
        step, number = self.best(run)
        chosen = {name: float(values[number]) for name, values in self.settings.items()}
        return {**chosen, "steps": self.read_at[step]}

    def posterior(self, run: int = 0, place: tuple[int, int] | None = None) -> tuple[Posterior, NetState]:
        """The posterior of one run at a step count and a setting, and the network's state with it.

        Args:
            run: its number.
            place: as :meth:`best` gives it; None for the best on average over runs.
        """
        step, number = self.best() if place is None else place
        settings = list(self.rungs[-1].settings)
        member = run * len(settings) + settings.index(number)
        return jax.tree.map(lambda x: x[member], self._snapshots[step])

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known about the choice: which of its settings are at an edge, and which limit that is."""
        step, number = self.best()
        return notes_of(self.settings, number, self.read_at, step)

    def __str__(self) -> str:
        step, number = self.best()
        chosen = ", ".join(f"{name} {value:.3g}" for name, value in self.setting().items())
        rounds = ", ".join(f"{len(rung.settings)} settings for {rung.budget} steps" for rung in self.rungs)
        error = self.errors[step, number]
        plus_minus = "" if np.isnan(error) else f" ± {error:.3f}"
        lines = [
            f"{chosen}: {self.curve[step, number]:.3f}{plus_minus} nats per example",
            f"{rounds}, {len(self.scores)} {'runs' if len(self.scores) > 1 else 'run'} of each; {self.steps:,} steps",
        ]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])


def grid(
    keys: Key,
    make_inference: Callable[[Any], Inference],
    settings: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    params: Params,
    data: Data,
    score: Callable[[Posterior, NetState, int], Any],
    *,
    steps: int,
    read_at: Sequence[int] | None = None,
    halving: int = 1,
    batch_size: int | None = None,
    transform: Any = None,
    params_axis: int | None = None,
    data_axis: int | None = None,
    vectorize: Any = None,
    progress: bool = False,
) -> Grid:
    """The best setting of a method by data that no run has seen, all runs in one program as :func:`bayestl.fit_many`
    has them.

    With ``halving=h`` the settings first run for a share of the steps, the best one in h of them goes on to the next
    round, h times as long, and so on until the last round has all steps: every round costs about as much, so that S
    settings cost ``1 + log_h S`` full runs and not S. Each round starts anew, so that what ends the last one is what it
    would be in the whole grid. A setting that is slow at first, such as a small learning rate, may be given up wrongly.

    Args:
        keys: (R,), one for each run of every setting.
        make_inference: setting -> :class:`~bayestl.Inference`, as for :func:`bayestl.fit_many`.
        settings: name to values, all of one length, such as :func:`product` gives; or a list of settings.
        params: where to start.
        data: the training data.
        score: ``(posterior, network state, number of the run)`` -> log predictive probabilities of validation data in
            nats, one for each example or their mean; larger is better.
        steps: of a whole run.
        read_at: step counts at which runs are scored, the last one ``steps``: when to stop is then chosen too. None for
            the end alone.
        halving: 1 for all settings to the end.
        batch_size: as for :func:`bayestl.fit_many`, like all that follow.
        transform: of batches.
        params_axis: 0 for starts of every run, leaves with a leading axis R.
        data_axis: 0 for data of every run, ``data.stack`` of R.
        vectorize: how runs share a device.
        progress: show progress bars.

    Returns:
        A :class:`Grid`; printed, the choice, its score and cost, and whether it is at an edge.

    Raises:
        ValueError: settings of different lengths; ``read_at`` that does not ascend to ``steps``; halving below 1.

    Reference:
        Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization".

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> train = btl.data.arrays(jnp.ones((2, 1)), jnp.array([1.0, 3.0]))
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=2)
        >>> def make(setting):
        ...     prior = btl.gaussians.isotropic(net.params, setting["scale"])
        ...     return btl.infer.proximal_map(joint.replace(prior=prior), 0.5)
        >>> held_out = btl.Batch(jnp.ones((1, 1)), jnp.array([1.0]))
        >>> result = btl.tune.grid(
        ...     jax.random.split(jax.random.key(0), 1), make, {"scale": [0.1, 0.7, 10.0]}, net.params, train,
        ...     lambda posterior, state, run: joint.log_likelihoods(posterior.params, held_out), steps=30,
        ... )
        >>> print({name: round(value, 2) for name, value in result.setting().items()})
        {'scale': 0.7, 'steps': 30}
    """
    check_arguments(grid, locals())
    values, num = _checked_settings(settings)
    reads = _checked_reads(read_at, steps, halving)
    runs, alive, rungs = len(keys), np.arange(num), []
    cost = 0
    seconds = compile_seconds = 0.0

    def of_runs(tree: Any, axis: int | None, count: int) -> Any:
        return tree if axis is None else jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), tree)

    for budget in _budgets(num, steps, halving):
        at = (*(step for step in reads if step < budget), budget)
        snapshots: dict[int, tuple[Any, Any]] = {}

        def snapshot(event: Progress, at: Any = at, snapshots: Any = snapshots) -> None:
            if event.step in at:
                snapshots[event.step] = (event.posterior(), getattr(event.state, "net_state", ()))

        count = len(alive)
        fitted = fit_many(
            jnp.repeat(keys, count, axis=0),
            make_inference,
            {name: jnp.tile(jnp.asarray(each[alive]), runs) for name, each in values.items()},
            of_runs(params, params_axis, count),
            of_runs(data, data_axis, count),
            steps=budget,
            batch_size=batch_size,
            transform=transform,
            chunk_size=math.gcd(*at),
            callbacks=[snapshot],
            progress=progress,
            params_axis=params_axis,
            data_axis=data_axis,
            vectorize=vectorize,
        )
        cost, seconds = cost + budget * count * runs, seconds + fitted.seconds
        compile_seconds += fitted.compile_seconds
        each, spread = _scored(score, snapshots, at, runs, count)
        by_setting = np.max(np.nan_to_num(each.mean(0), nan=-np.inf), 0)
        rungs.append(Rung(budget, alive, by_setting))
        if budget < steps:
            alive = np.sort(alive[np.argsort(-by_setting, kind="stable")[: max(1, math.ceil(count / halving))]])
    return _result(values, num, at, each, spread, rungs, fitted, snapshots, cost, seconds, compile_seconds)


def _result(
    values: dict[str, np.ndarray], num: int, at: tuple[int, ...], each: np.ndarray, spread: np.ndarray,
    rungs: list[Rung], fitted: ManyResult, snapshots: Any, cost: int, seconds: float, compile_seconds: float,
) -> Grid:  # fmt: skip
    alive, runs = rungs[-1].settings, len(each)
    scores, errors = np.full((runs, len(at), num), np.nan), np.full((len(at), num), np.nan)
    scores[:, :, alive], errors[:, alive] = each, spread
    failed = np.full((runs, num), -1)
    failed[:, alive] = fitted.failed.reshape(runs, -1)
    ordered = tuple(snapshots[step] for step in at)
    return Grid(values, at, scores, errors, tuple(rungs), failed, cost, seconds, compile_seconds, ordered)


def _scored(
    score: Any, snapshots: dict[int, Any], at: tuple[int, ...], runs: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean scores (R, T, S), and standard errors of their means over runs, or over examples, (T, S)."""
    means, deviations = np.empty((runs, len(at), count)), np.full((len(at), count), np.nan)
    for run, place, number in np.ndindex(means.shape):
        posterior, state = jax.tree.map(lambda x, m=run * count + number: x[m], snapshots[at[place]])
        values = np.atleast_1d(np.asarray(score(posterior, state, run), np.float64))
        means[run, place, number] = values.mean()
        if runs == 1 and len(values) > 1:
            deviations[place, number] = values.std(ddof=1) / np.sqrt(len(values))
    return means, deviations if runs == 1 else means.std(0, ddof=1) / np.sqrt(runs)


def _budgets(num: int, steps: int, halving: int) -> list[int]:
    """Steps of each round, ascending to ``steps``."""
    rounds = 1
    while halving > 1 and num > 1 and steps // halving**rounds >= 1:
        num, rounds = math.ceil(num / halving), rounds + 1
    return [max(1, round(steps / halving**left)) for left in reversed(range(rounds))]


def _checked_settings(settings: Any) -> tuple[dict[str, np.ndarray], int]:
    if not isinstance(settings, Mapping):
        each = list(settings)
        if not each or any(set(one) != set(each[0]) for one in each):
            raise ValueError("settings is a list of settings with different names, or of none; give all the same names")
        settings = {name: [one[name] for one in each] for name in each[0]}
    values = {name: np.asarray(each) for name, each in settings.items()}
    lengths = {name: len(each) if each.ndim else 0 for name, each in values.items()}
    if not lengths or len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ValueError(f"settings have {lengths} values; give every setting equally many, as tune.product does")
    return values, next(iter(lengths.values()))


def _checked_reads(read_at: Any, steps: int, halving: int) -> tuple[int, ...]:
    if halving < 1:
        raise ValueError(f"halving is {halving}; give 1 for none, or one in how many settings goes on, 2 or more")
    reads = (steps,) if read_at is None else tuple(int(step) for step in read_at)
    if not reads or list(reads) != sorted(set(reads)) or reads[0] < 1 or reads[-1] != steps:
        raise ValueError(f"read_at is {read_at}; give step counts that ascend to steps, {steps}")
    return reads
