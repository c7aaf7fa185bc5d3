"""What a run reports as it goes: its history, and what callbacks see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Posterior

History = dict[str, np.ndarray]


class Progress(NamedTuple):
    """What a callback sees after a chunk of steps.

    Attributes:
        step: steps taken so far.
        history: the method's infos of this chunk's steps, name to array (steps in the chunk, ...).
        state: the method's state; for ``fit_many`` with a leading member axis.
        posterior: function that returns the posterior so far.
    """

    step: int
    history: History
    state: Any
    posterior: Callable[[], Any]


Callback = Callable[[Progress], bool | None]
"""Called with :class:`Progress` after each chunk of steps; True ends the run."""


def ask(callbacks: Sequence[Callback], event: Progress) -> bool:
    """Call every callback; returns whether one of them ends the run."""
    return any([callback(event) is True for callback in callbacks])


def join(chunks: Sequence[History], axis: int = 0) -> History:
    """Histories of chunks, concatenated; NaN where a chunk lacks a score that others have."""
    names = dict.fromkeys(name for chunk in chunks for name in chunk)
    return {name: np.concatenate([_column(chunk, name) for chunk in chunks], axis=axis) for name in names}


def _column(chunk: History, name: str) -> np.ndarray:
    return chunk[name] if name in chunk else np.full_like(chunk["objective"], np.nan)


class EarlyStopping:
    """A callback that ends a run when a validation score stops falling, and remembers the best posterior.

    Args:
        evaluate: posterior -> number, lower is better, on validation data.
        patience: after how many chunks without improvement the run ends.

    Attributes:
        best: the posterior with the lowest score so far.
        best_score: that score.
        best_step: the step at which it was reached.
    """

    def __init__(self, evaluate: Callable[[Posterior], Any], patience: int = 5):
        check_arguments(EarlyStopping.__init__, locals())
        if patience < 1:
            raise ValueError(f"patience is {patience}; give a number of chunks, at least 1")
        self._evaluate, self._patience, self._waited = evaluate, patience, 0
        self.best: Any = None
        self.best_score, self.best_step = float("inf"), 0

    def __call__(self, event: Progress) -> bool:
        """Score the posterior so far; True once patience is exhausted."""
        posterior = event.posterior()
        score = float(self._evaluate(posterior))
        if score < self.best_score:
            self.best, self.best_score, self.best_step, self._waited = posterior, score, event.step, 0
        else:
            self._waited += 1
        return self._waited >= self._patience
