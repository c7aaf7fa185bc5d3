"""The results of one run, and of many."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from bayestl._types import Params, Posterior
from bayestl.posteriors import save
from bayestl.training._progress import History


class FitResult(NamedTuple):
    """The result of a run.

    Attributes:
        posterior: the method's posterior.
        state: the method's last good state.
        history: the method's infos, name to array with one entry per step; for a run with ``validate`` also
            "validation_nll", NaN at steps after which there was no validation.
        steps: steps taken that led to this result.
        stopped: why the run ended: "finished", "already finished" (in its checkpoint), "callback", "interrupted", or a
            sentence on what went wrong.
        seconds: wall-clock seconds, without compilation.
        compile_seconds: seconds until the program was ready.
        failed: the step whose objective or new state was not finite, or -1.
        member: its number among the members of ``fit_many``; None for a run of ``fit``.
    """

    posterior: Posterior
    state: Any
    history: History
    steps: int
    stopped: str
    seconds: float
    compile_seconds: float
    failed: int = -1
    member: int | None = None

    @property
    def params(self) -> Params:
        """The posterior as one set of parameters: the point, or the mean."""
        return _params(self.posterior)

    @property
    def net_state(self) -> Any:
        """The network's state at the end; give it to ``joint.replace(state=...)`` before predicting."""
        return getattr(self.state, "net_state", ())

    def save(self, path: str | os.PathLike[str], *, settings: dict[str, Any] | None = None) -> None:
        """Write the posterior to one file, with the network's state; :func:`~bayestl.load` reads it.

        Args:
            path: the file; an existing one is replaced.
            settings: any JSON object, stored with the run's steps, why it stopped, and its seconds.

        Raises:
            TypeError: a kind of posterior that cannot be saved; settings that are not JSON.
        """
        run = {name: getattr(self, name) for name in ("steps", "stopped", "seconds", "compile_seconds")}
        save(path, self.posterior, net_state=self.net_state, settings={**run, **(settings or {})})

    def __repr__(self) -> str:
        objective = self.history.get("objective", np.zeros(0))
        values = f", objective {objective[0]:.4g} to {objective[-1]:.4g}" if len(objective) else ""
        kind = type(self.posterior).__name__
        return f"FitResult({kind}, {self.steps:,} steps, {self.stopped!r}{values}, {self.seconds:.1f} s)"


@dataclasses.dataclass(frozen=True, repr=False)
class ManyResult:
    """The results of many runs. M is the number of members, ``len(results)``; iteration is over the members.

    Attributes:
        posterior: the posterior, leaves with a leading axis M.
        state: the method's states, leaves with a leading axis M.
        history: the method's infos, name to array (M, steps, ...).
        failed: (M,), the step whose objective or new state was not finite, at which the member was frozen; or -1.
        steps: steps taken.
        stopped: "finished", "already finished" (in the checkpoint), "callback", or "interrupted".
        seconds: wall-clock seconds for all members, without compilation.
        compile_seconds: seconds until the program was ready.
    """

    posterior: Posterior
    state: Any
    history: History
    failed: np.ndarray
    steps: int
    stopped: str
    seconds: float
    compile_seconds: float
    _posterior_of: Callable[[int, Any], Posterior] = dataclasses.field(repr=False)

    @property
    def params(self) -> Params:
        """Every member's parameters (the point, or the mean), leaves with a leading axis M."""
        return _params(self.posterior)

    @property
    def net_state(self) -> Any:
        """Every member's network state, leaves with a leading axis M."""
        return getattr(self.state, "net_state", ())

    def __repr__(self) -> str:
        num_failed, kind = int(np.sum(self.failed >= 0)), type(self.posterior).__name__
        failed = f", {num_failed} failed" if num_failed else ""
        members = f"{len(self.failed)} members, {kind} each"
        return f"ManyResult({members}, {self.steps:,} steps, {self.stopped!r}{failed}, {self.seconds:.1f} s)"

    def __len__(self) -> int:
        return len(self.failed)

    def __iter__(self) -> Iterator[FitResult]:
        return (self.member(m) for m in range(len(self)))

    def member(self, m: int) -> FitResult:
        """One member's result, as :func:`~bayestl.fit` would return it; the seconds are those of all members.

        A member that failed has the state before the step that failed, and the history up to that step.

        Args:
            m: its number, 0 to M - 1; or -1 to -M, counted from the end.

        Raises:
            IndexError: no such member.

        Example:
            >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
            >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=2)
            >>> data = btl.data.arrays(jnp.ones((2, 1)), jnp.array([1.0, 3.0]))
            >>> results = btl.fit_many(
            ...     jax.random.split(jax.random.key(0), 2),
            ...     lambda rate: btl.infer.map_estimate(joint, optax.sgd(rate)),
            ...     jnp.array([0.01, 0.5]), net.params, data, steps=50, progress=False,
            ... )
            >>> len(results), [round(result.params["w"].item(), 1) for result in results]
            (2, [0.8, 2.0])
            >>> results.best(lambda posterior: (posterior.params["w"][0] - 2) ** 2).member
            1
        """
        if not -len(self) <= m < len(self):
            raise IndexError(f"there is no member {m} among {len(self)}; they are numbered 0 to {len(self) - 1}")
        m, failed = m % len(self), int(self.failed[m])
        state = jax.tree.map(lambda x: x[m], self.state)
        steps = self.steps if failed < 0 else failed - 1
        history = {name: values[m][:steps] for name, values in self.history.items()}
        stopped = self.stopped if failed < 0 else f"step {failed} was not finite; the state is that before it"
        posterior = self._posterior_of(m, state)
        return FitResult(posterior, state, history, steps, stopped, self.seconds, self.compile_seconds, failed, m)

    def best(self, score: Callable[[Posterior], Any]) -> FitResult:
        """The member with the lowest score; its number is ``.member``.

        Args:
            score: posterior -> number, lower is better, on validation data. Members that failed, and scores that are
                NaN, are left out.

        Raises:
            ValueError: no member has a score.
        """
        alive = [self.member(int(m)) for m in np.flatnonzero(self.failed < 0)]
        scored = [(value, result) for result in alive if not np.isnan(value := float(score(result.posterior)))]
        if not scored:
            num_failed = len(self) - len(alive)
            raise ValueError(f"none of {len(self)} members has a score: {num_failed} failed, others gave NaN")
        return min(scored, key=lambda pair: pair[0])[1]


def _params(posterior: Any) -> Params:
    return posterior.params if hasattr(posterior, "params") else posterior.mean
