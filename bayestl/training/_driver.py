"""The loop over chunks of steps, for one run and for many: reports, checkpoints, interruption, failures."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from bayestl.training._checkpoint import Saver
from bayestl.training._progress import Callback, History, Progress, ask, join

VALIDATION = "validation_nll"
"""The name of the validation score in the history: NaN at steps after which there was no validation."""


class Run(NamedTuple):
    """What the loop runs, and how it is reported.

    Attributes:
        advance: ``(state, start, num) -> (state, infos, finite)``, for at most ``capacity`` steps; ``finite`` says
            whether the new state is finite. It is always true if the program itself undoes a step that fails.
        record: ``(infos, num) -> History``, on the host.
        progress: ``(step, history of the chunk, state) -> Progress``.
        summary: ``(history of the chunk, state) -> str``, for the progress bar.
        validate: ``state -> score``, stored in the history under ``VALIDATION``; None for no validation.
        axis: the axis of the history that counts steps.
        states: a word for what the result holds: "state", or "states" of many members.
    """

    advance: Callable[[Any, int, int], tuple[Any, Any, Any]]
    record: Callable[[Any, int], History]
    progress: Callable[[int, History, Any], Progress]
    summary: Callable[[History, Any], str]
    validate: Callable[[Any], float] | None = None
    axis: int = 0
    states: str = "state"


class Position(NamedTuple):
    """Where a run is. It is replaced as a whole: state, step and history are consistent whenever an interrupt comes.

    Attributes:
        state: the method's state.
        step: steps taken.
        chunks: the history of every chunk so far.
    """

    state: Any
    step: int
    chunks: tuple[History, ...]

    def history(self, axis: int) -> History:
        """The history of all steps taken."""
        steps_so_far = (slice(None),) * axis + (slice(self.step),)
        return {name: values[steps_so_far] for name, values in join(self.chunks, axis).items()}


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        state: the last good state.
        step: steps taken.
        history: of these steps.
        stopped: "finished", "callback", "interrupted", or a sentence on what went wrong.
        failed: the step that went wrong, or -1.
        seconds: wall-clock seconds, without compilation.
        compile_seconds: seconds until the program was ready.
    """

    state: Any
    step: int
    history: History
    stopped: str
    failed: int
    seconds: float
    compile_seconds: float


def drive(
    run: Run,
    start: list[Any],
    *,
    steps: int,
    capacity: int,
    every: int = 0,
    callbacks: Sequence[Callback],
    saver: Saver | None,
    progress: bool,
    compile_seconds: float = 0.0,
) -> Outcome:
    """Run ``steps`` steps, in chunks of at most ``capacity``.

    After a chunk come the callbacks, and then the checkpoint: what is saved has been reported. If a callback fails, the
    last checkpoint is that of the previous chunk, and a run that continues from it shows the callback the same steps
    again.

    Args:
        run: what is run.
        start: a list with one state, which is removed from it. A run holds three states at a time; if the caller still
            held the first one, there would be four.
        steps: how many in all.
        capacity: the most steps of a chunk.
        every: steps between validations, each of which ends a chunk; 0 for no validation.
        callbacks: called after every chunk.
        saver: saves the run's checkpoints; None for a run without.
        progress: show a progress bar.
        compile_seconds: how long compilation took.
    """
    now, failed = _first_position(start.pop(), saver, steps), -1
    stopped = "already finished" if now.step == steps else "finished"
    before = reported = now
    began = time.perf_counter()
    with tqdm(total=steps, disable=not progress, unit="step", dynamic_ncols=True, initial=now.step) as bar:
        try:
            while now.step < steps:
                num = min(capacity, steps - now.step, *([every - now.step % every] if every else []))
                new_state, infos, finite = run.advance(now.state, now.step, num)
                chunk = run.record(infos, num)
                if run.validate is not None:
                    chunk[VALIDATION] = np.full(num, np.nan, np.float32)
                # Members are reverted one by one inside the program.
                good = num if run.axis else _good_steps(chunk["objective"], bool(finite))
                if good < num:
                    now, failed, stopped = _recovered(run, before, now, chunk, good)
                    reported = now
                    warnings.warn(stopped, RuntimeWarning, stacklevel=3)
                    break
                if run.validate is not None and (now.step + num) % every == 0:
                    chunk[VALIDATION][-1] = run.validate(new_state)
                before, now = now, Position(new_state, now.step + num, (*now.chunks, chunk))
                bar.update(num)
                bar.set_postfix_str(run.summary(chunk, now.state), refresh=False)
                ends = ask(callbacks, run.progress(now.step, chunk, now.state))
                reported = now
                if saver is not None and saver.due(now.step):
                    saver.save(now.step, now.state, now.history(run.axis))
                if ends:
                    stopped = "callback"
                    break
        except KeyboardInterrupt:
            stopped = "interrupted"
            message = f"interrupted; the result holds the {run.states} after {now.step} steps"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
        finally:
            # Also when a callback fails, or a stream finds an example that it cannot read.
            if saver is not None:
                saver.save(reported.step, reported.state, reported.history(run.axis))
    seconds = time.perf_counter() - began
    return Outcome(now.state, now.step, now.history(run.axis), stopped, failed, seconds, compile_seconds)


def _first_position(state: Any, saver: Saver | None, steps: int) -> Position:
    """Where a run begins: at its start or at its last checkpoint."""
    saved = None if saver is None else saver.restore(state, steps)
    return Position(state, 0, ()) if saved is None else Position(saved.state, saved.step, (saved.history,))


def _good_steps(objective: np.ndarray, finite: bool) -> int:
    """How many steps of a chunk are good: those before the update that led to the first non-finite objective or state.

    -1 if that update was the last one of the previous chunk.
    """
    bad = np.flatnonzero(~np.isfinite(objective))
    if bad.size:
        return int(bad[0]) - 1
    return len(objective) if finite else len(objective) - 1


def _recovered(run: Run, before: Position, now: Position, chunk: History, good: int) -> tuple[Position, int, str]:
    """The last good position, the step that failed and a sentence on it, found by replay from an earlier position."""
    start = now if good >= 0 else before
    last = max(now.step + good, start.step)
    state, step = _last_finite(run.advance, start.state, start.step, last)
    bad = np.flatnonzero(~np.isfinite(chunk["objective"]))
    failed, where = step + 1, f"the state is not finite after step {step + 1}"
    if bad.size:
        failed = now.step + int(bad[0]) + 1
        where = f"the objective is {chunk['objective'][bad[0]]} at step {failed}"
    words = (
        f"{where}; the run stops and keeps the state after step {step}. A smaller learning rate, or a prior "
        "that is less sharp (a larger eps or scale; or infer.proximal_map) may help"
    )
    return Position(state, step, (*now.chunks, chunk)), failed, words


def _last_finite(advance: Callable, state: Any, start: int, step: int) -> tuple[Any, int]:
    """The state after ``step`` steps, or the last finite one before, by replay from ``state`` at step ``start``."""
    new_state, _, finite = advance(state, start, step - start)
    if finite:
        return new_state, step
    # A part of the state that does not enter the objective (running statistics) may have failed earlier.
    good, bad = start, step
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if advance(state, start, middle - start)[2] else (good, middle)
    return advance(state, start, good - start)[0], good
