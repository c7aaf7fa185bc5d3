"""The one training loop: any method, on a data set on the device or one that streams, on one device or many."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from tqdm.auto import tqdm

from bayestl._arguments import check_key
from bayestl._placement import MeshLayout, check_sharding, layout_of, place_alike, replicate
from bayestl._static import Static, partition
from bayestl._types import Data, Inference, Key, Params, Posterior
from bayestl.passes import first_examples
from bayestl.posteriors import save
from bayestl.training._checkpoint import Checkpoint, describe_run, opened
from bayestl.training._loop import Keys, Span, Transform, all_finite, as_seen, check_run, run_steps, split_key


class Progress(NamedTuple):
    """What a callback sees after a chunk of steps.

    Attributes:
        step: steps taken so far.
        history: the method's infos of this chunk's steps, name to array (steps in the chunk, ...).
        state: the method's state; for ``fit_many`` with a leading member axis.
        posterior: function that gives the posterior so far.
    """

    step: int
    history: dict[str, np.ndarray]
    state: Any
    posterior: Callable[[], Any]


Callback = Callable[[Progress], bool | None]


class FitResult(NamedTuple):
    """What a run gives.

    Attributes:
        posterior: the method's posterior.
        state: the method's last good state.
        history: the method's infos, name to array with one entry per step.
        steps: steps taken (of which the results are kept).
        stopped: why the run ended: "finished", "already finished" (in the checkpoint that was found), "callback",
            "interrupted", or the words on what went wrong.
        seconds: wall-clock seconds, compilation left out.
        compile_seconds: seconds until the program was ready.
    """

    posterior: Any
    state: Any
    history: dict[str, np.ndarray]
    steps: int
    stopped: str
    seconds: float
    compile_seconds: float

    @property
    def params(self) -> Params:
        """The posterior's one set of parameters: the point, or the mean."""
        return self.posterior.params if hasattr(self.posterior, "params") else self.posterior.mean

    @property
    def net_state(self) -> Any:
        """The network's state at the end; give it to ``joint.replace(state=...)`` before predicting."""
        return getattr(self.state, "net_state", ())

    def save(self, path: str | os.PathLike[str], *, settings: dict[str, Any] | None = None) -> None:
        """Write the posterior to one file, with the network's state; :func:`~bayestl.load` reads it.

        Args:
            path: where to; an existing file is replaced.
            settings: any JSON object, beside the run's steps, why it stopped, and its seconds.

        Raises:
            TypeError: a posterior of a kind that files do not hold; settings that are no JSON.
        """
        run = {name: getattr(self, name) for name in ("steps", "stopped", "seconds", "compile_seconds")}
        save(path, self.posterior, net_state=self.net_state, settings={**run, **(settings or {})})

    def __repr__(self) -> str:
        objective = self.history.get("objective", np.zeros(0))
        values = f", objective {objective[0]:.4g} to {objective[-1]:.4g}" if len(objective) else ""
        kind = type(self.posterior).__name__
        return f"FitResult({kind}, {self.steps:,} steps, {self.stopped!r}{values}, {self.seconds:.1f} s)"


class Prepared(NamedTuple):
    """A run before its first step: what its program takes, and the static parts of it."""

    state: Any
    dynamic: list[Any]
    static: Static
    keys: Keys
    layout: MeshLayout | None


def prepare(init: Callable, step: Callable, keys: Keys, params: Params, sharding: Any, batch_size: int) -> Prepared:
    state, layout = init(keys.init, params), None
    if sharding is not None:
        check_sharding(sharding, batch_size)
        mesh = sharding.mesh
        params, keys = replicate(params, mesh), replicate(keys, mesh)
        state, step = place_alike(state, params, mesh), place_alike(step, params, mesh)
        layout = layout_of(sharding, state)
    return Prepared(state, *partition(step), keys, layout)


@partial(jax.jit, static_argnames=("static", "capacity", "batch_size", "transform", "layout"))
def run_chunk(dynamic, state, data, keys, span, *, static, capacity, batch_size, transform, layout):
    step = static.combine(dynamic)
    state, infos = run_steps(
        step, state, data, keys, span, capacity=capacity, batch_size=batch_size, transform=transform, layout=layout
    )
    return state, infos, all_finite(state)


def fit(
    key: Key,
    inference: Inference,
    params: Params,
    data: Data,
    *,
    steps: int,
    batch_size: int | None = None,
    transform: Transform | None = None,
    chunk_size: int = 100,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    sharding: NamedSharding | None = None,
    progress: bool = True,
) -> FitResult:
    """Run a method for a number of steps.

    Steps run in compiled chunks, with batches gathered and transformed inside the program; progress, history and
    callbacks come between chunks. The result depends on ``key`` and not on ``chunk_size``. Memory: three copies of the
    method's state, since the starts of this chunk and of the one before are kept to fall back on; see
    :func:`~bayestl.estimate_memory`.

    Args:
        key: for the start, the order of the data, and the method itself.
        inference: the method, from ``bayestl.infer``.
        params: where to start.
        data: the training data, from ``bayestl.data``.
        steps: number of steps.
        batch_size: examples per step, 1 to N; by default 64, or N where that is less.
        transform: ``(key, batch) -> batch``, augmentation, inside the compiled program.
        chunk_size: steps between reports.
        callbacks: functions of :class:`Progress`, called after each chunk; True ends the run. What they remember is
            their own: a run that goes on from a checkpoint does not call them for the steps before it.
        checkpoint: save the run as it goes, and go on from the last checkpoint when there is one.
        sharding: how a batch lies on a mesh of Auto axes, ``NamedSharding(mesh, PartitionSpec("data"))``: every device
            then works on its part of each batch, and the result is that of one device to rounding. Parameters stay as
            they were placed (:func:`~bayestl.shard_params`), or are replicated; priors and states are laid out alike.
            Arrays given are the same in every process.
        progress: show a progress bar.

    Raises:
        ValueError: a start, data, batch size or number of steps that do not fit; a checkpoint of another run; a mesh
            that does not divide the batch.

    Warns:
        RuntimeWarning: the objective or the state became non-finite; the run stops and keeps the last good state.
    """
    check_key("fit", key)
    batch_size, capacity = check_run(data, steps, batch_size, chunk_size)
    inference.check(params, *as_seen(first_examples(data), transform))
    keys = split_key(key)
    state, dynamic, static, keys, layout = prepare(inference.init, inference.step, keys, params, sharding, batch_size)

    def description() -> dict[str, Any]:
        return describe_run(static.combine, dynamic, state, key, data, batch_size, transform)

    options = {"capacity": capacity, "batch_size": batch_size, "transform": transform, "layout": layout}
    history: list[dict[str, np.ndarray]] = []
    done, stopped = 0, "finished"
    with (
        opened(checkpoint, description) as saver,
        data.open(keys.order, batch_size, capacity, sharding) as window,
        tqdm(**bar_options(steps, progress)) as bar,
    ):

        def advance(state: Any, start: int, num: int) -> tuple[Any, Any, jax.Array]:
            span = Span(np.int32(start), np.int32(num))
            return run_chunk(dynamic, state, window(start), keys, span, static=static, **options)

        if saver is not None and (saved := saver.restore(state, steps)) is not None:
            done, state = saved.step, saved.state
            stopped = "already finished" if done == steps else stopped
            history.append(saved.history)
            bar.update(done)
        began = time.perf_counter()
        # An empty span compiles the program, and runs none of it.
        jax.block_until_ready(advance(state, done, 0))
        ready = time.perf_counter()
        before = (state, done)
        try:
            while done < steps:
                num = min(capacity, steps - done)
                new_state, infos, finite = advance(state, done, num)
                history.append(infos := to_host(infos, num))
                good = done + _good_steps(infos["objective"], bool(finite))
                if good < done + num:
                    start = (state, done) if good >= done else before
                    state, kept = _last_finite(advance, *start, max(good, start[1]))
                    stopped = _failure(infos["objective"], done, kept)
                    warnings.warn(stopped, RuntimeWarning, stacklevel=2)
                    done = kept
                    break
                before, state, done = (state, done), new_state, done + num
                bar.update(num)
                bar.set_postfix_str(f"objective {np.mean(infos['objective']):.4g}", refresh=False)
                if saver is not None and saver.due(done):
                    saver.save(done, state, join(history))
                if ask(callbacks, Progress(done, infos, state, partial(inference.posterior, state))):
                    stopped = "callback"
                    break
        except KeyboardInterrupt:
            stopped = "interrupted"
            warnings.warn(f"interrupted; the result holds the state after {done} steps", RuntimeWarning, stacklevel=2)
        finally:
            # Also when a callback fails, or a stream finds an example that it cannot read.
            kept_history = {name: values[:done] for name, values in join(history).items()}
            if saver is not None:
                saver.save(done, state, kept_history)
    seconds = time.perf_counter() - ready
    return FitResult(inference.posterior(state), state, kept_history, done, stopped, seconds, ready - began)


def bar_options(steps: int, progress: bool) -> dict[str, Any]:
    """How the progress bar looks."""
    return {"total": steps, "disable": not progress, "unit": "step", "dynamic_ncols": True}


def to_host(infos: Any, num: int, num_members: int | None = None) -> dict[str, np.ndarray]:
    """The infos of ``num`` steps, name to array (num, ...); with members (num_members, num, ...)."""
    part = (slice(num),) if num_members is None else (slice(num_members), slice(num))
    return {name: np.asarray(values)[part] for name, values in infos._asdict().items() if values is not None}


def _good_steps(objective: np.ndarray, finite: bool) -> int:
    """Steps of a chunk to keep: those before the update that led to the first non-finite objective or state.

    -1 where that update was the last one of the chunk before.
    """
    bad = np.flatnonzero(~np.isfinite(objective))
    if bad.size:
        return int(bad[0]) - 1
    return len(objective) if finite else len(objective) - 1


def _last_finite(advance: Callable, state: Any, start: int, step: int) -> tuple[Any, int]:
    """The state after ``step`` steps, or the last finite one before, by replay from ``state`` after ``start`` steps."""
    new_state, _, finite = advance(state, start, step - start)
    if finite:
        return new_state, step
    # A part of the state that the objective does not see (running statistics) may have failed earlier.
    good, bad = start, step
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if advance(state, start, middle - start)[2] else (good, middle)
    return advance(state, start, good - start)[0], good


def _failure(objective: np.ndarray, done: int, kept: int) -> str:
    bad = np.flatnonzero(~np.isfinite(objective))
    where = f"the state is not finite after step {kept + 1}"
    if bad.size:
        where = f"the objective is {objective[bad[0]]} at step {done + bad[0] + 1}"
    return (
        f"{where}; the run stops and keeps the state after step {kept}. A smaller learning rate, or a prior "
        "that is less sharp (a larger eps or scale; or infer.proximal_map) may help"
    )


def ask(callbacks: Sequence[Callback], event: Progress) -> bool:
    """Call every callback; whether one of them wants the run to end."""
    return any([callback(event) is True for callback in callbacks])


def join(history: list[dict[str, np.ndarray]], axis: int = 0) -> dict[str, np.ndarray]:
    """Histories of chunks, one after another."""
    if not history:
        return {}
    return {name: np.concatenate([chunk[name] for chunk in history], axis=axis) for name in history[0]}


class EarlyStopping:
    """A callback that ends a run when a validation score no longer falls, and remembers the best posterior.

    Args:
        evaluate: posterior -> number, lower is better, on validation data.
        patience: chunks without improvement that are borne.

    Attributes:
        best: the posterior with the lowest score so far.
        best_score: that score.
        best_step: the step at which it was reached.
    """

    def __init__(self, evaluate: Callable[[Posterior], Any], patience: int = 5):
        if patience < 1:
            raise ValueError(f"patience is {patience}; give a number of chunks, at least 1")
        self._evaluate, self._patience, self._waited = evaluate, patience, 0
        self.best: Any = None
        self.best_score, self.best_step = float("inf"), 0

    def __call__(self, event: Progress) -> bool:
        """Score the posterior so far; True when patience is at an end."""
        posterior = event.posterior()
        score = float(self._evaluate(posterior))
        if score < self.best_score:
            self.best, self.best_score, self.best_step, self._waited = posterior, score, event.step, 0
        else:
            self._waited += 1
        return self._waited >= self._patience
