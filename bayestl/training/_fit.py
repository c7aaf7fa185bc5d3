"""The one training loop: any method, on a data set on the device or one that streams, on one device or many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import NamedSharding

from bayestl._arguments import check_key
from bayestl._types import Data, Inference, Key, Params
from bayestl.passes import first_examples
from bayestl.training._checkpoint import Checkpoint, describe_run, opened
from bayestl.training._driver import Run, drive
from bayestl.training._loop import Transform, as_seen, check_run, split_key
from bayestl.training._progress import Callback, History, Progress
from bayestl.training._results import FitResult
from bayestl.training._single import Chunks, prepare


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
    prepared = prepare(inference.init, inference.step, keys, params, sharding, capacity, batch_size, transform)

    def description() -> dict[str, Any]:
        make_step, numbers = prepared.recipe.make_step, prepared.numbers
        return describe_run(make_step, numbers, prepared.state, key, data, batch_size, transform)

    with opened(checkpoint, description) as saver, data.open(keys.order, batch_size, capacity, sharding) as window:
        began = time.perf_counter()
        chunks = Chunks(prepared, window(0))
        outcome = drive(
            Run(
                advance=lambda state, start, num: chunks(window(start), state, start, num),
                record=_record,
                progress=lambda step, chunk, state: Progress(step, chunk, state, partial(inference.posterior, state)),
                summary=lambda chunk, state: f"objective {np.mean(chunk['objective']):.4g}",
            ),
            prepared.state,
            steps=steps,
            capacity=capacity,
            callbacks=callbacks,
            saver=saver,
            progress=progress,
            compile_seconds=time.perf_counter() - began,
        )
    state, step, history, stopped, failed, seconds, compile_seconds = outcome
    return FitResult(inference.posterior(state), state, history, step, stopped, seconds, compile_seconds, failed)


def _record(infos: Any, num: int) -> History:
    """The infos of ``num`` steps, name to array (num, ...)."""
    return {name: np.asarray(values)[:num] for name, values in infos._asdict().items() if values is not None}
