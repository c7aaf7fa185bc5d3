"""The one training loop: any method, on data in memory or a stream, on one device or several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import NamedSharding

from bayestl._arguments import check_arguments
from bayestl._data_size import sized, warn_of_size
from bayestl._types import Batch, Data, Inference, Key, Params
from bayestl.passes import Batches, first_examples
from bayestl.training._checkpoint import Checkpoint, describe_run, opened
from bayestl.training._driver import Run, drive
from bayestl.training._loop import Transform, as_seen, check_of_blocks, check_run, split_key, steps_per_epoch
from bayestl.training._progress import Callback, History, Progress
from bayestl.training._results import FitResult
from bayestl.training._single import Chunks, prepare
from bayestl.training._validation import Score, check_every, check_validate


def fit(
    key: Key,
    inference: Inference,
    params: Params,
    data: Data,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    transform: Transform | None = None,
    validate: Data | Batch | Batches | None = None,
    every: int | None = None,
    chunk_size: int = 100,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    sharding: NamedSharding | None = None,
    progress: bool = True,
) -> FitResult:
    """Run a method for a number of steps.

    Steps run in compiled chunks, with batches gathered and transformed inside the program; progress, history and
    callbacks come between chunks. The result depends on ``key``, not on ``chunk_size``. Memory: three copies of the
    method's state, since the starts of this chunk and of the previous one are kept to fall back on; see
    :func:`~bayestl.estimate_memory`.

    Args:
        key: for the start, the order of the data, and the method itself.
        inference: the method, from ``bayestl.infer``. A log joint that was given no ``num_data`` has that of ``data``.
        params: where to start.
        data: the training data, from ``bayestl.data``.
        steps: number of steps.
        epochs: instead of ``steps``, the number of passes over the data, each of ceil(N / batch_size) steps: the last
            batch of an epoch is filled up with examples from its beginning.
        batch_size: examples per step, 1 to N; by default 64, or N if that is less.
        transform: ``(key, batch) -> batch``, augmentation, inside the compiled program.
        validate: validation data, like ``data``, or a :class:`~bayestl.Batch`, whose weights count. After every
            ``every`` steps their mean negative log likelihood, in nats per example, is stored in
            ``history["validation_nll"]``, which has one entry per step and is NaN at all other steps. The score is that
            of the network without dropout at one set of parameters: the ``params`` of the method's state (MAP, SWAG's
            optimizer, the chain of SGLD and SGHMC), or the ``mean`` of its Gaussian (VI, IVON), with the network's
            state at that step. It does not average over the posterior; use a callback to score that. ``transform`` is
            not applied, and examples are scored ``batch_size`` at a time.
        every: steps between validations, by default an epoch. Chunks end there. If ``chunk_size`` does not divide
            ``every``, a stream is therefore reopened after each validation.
        chunk_size: steps between reports.
        callbacks: functions of :class:`Progress`, called after each chunk; a run ends when one returns True. They are
            not saved: a run that continues from a checkpoint does not call them for the steps before it.
        checkpoint: save the run as it goes, and continue from the last checkpoint if there is one.
        sharding: how a batch lies on a mesh of Auto axes, ``NamedSharding(mesh, PartitionSpec("data"))``: every device
            then works on its part of each batch, and the result is that of a single device up to rounding. Parameters
            stay where they were placed (:func:`~bayestl.shard_params`), or are replicated; priors and states are placed
            likewise. All processes have to give the same arrays.
        progress: show a progress bar.

    Raises:
        ValueError: a start, data, batch size or number of steps that do not fit; both steps and epochs, or neither;
            validation data that do not fit, or a method that cannot be scored; a checkpoint of another run; a mesh that
            does not divide the batch.

    Warns:
        UserWarning: data of more or fewer examples than ``num_data`` of the method's log joint.
        RuntimeWarning: the objective or the state became non-finite; the run stops and keeps the last good state.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=4)
        >>> train = btl.data.arrays(jnp.ones((4, 1)), jnp.full(4, 2.0))
        >>> held_out = btl.data.arrays(jnp.ones((2, 1)), jnp.full(2, 2.0))
        >>> method = btl.infer.map_estimate(joint, optax.sgd(0.5))
        >>> fitted = btl.fit(
        ...     jax.random.key(0), method, net.params, train, epochs=2, batch_size=2, validate=held_out, progress=False
        ... )
        >>> print(fitted.steps, fitted.history["validation_nll"].round(2))
        4 [ nan 1.04  nan 0.93]
    """
    check_arguments(fit, locals(), skip=("steps", "epochs", "every", "chunk_size", "validate"))
    steps, batch_size, capacity = check_run(data, steps, batch_size, chunk_size, epochs)
    inputs, targets = as_seen(first_examples(data), transform)
    warn_of_size(inference, data.num_examples)
    inference = sized(inference, data.num_examples)
    check = check_of_blocks(inference.check(params, inputs, targets), data, transform)
    if validate is not None:
        every = check_every(every, steps, steps_per_epoch(data, batch_size))
        check_validation = check_validate(inference, params, validate, inputs)
    elif every is None:
        check_validation = None
    else:
        raise ValueError(f"every is {every}, but there are no data to validate on; give validate, or leave every out")
    keys = split_key(key)
    prepared = prepare(inference.init, inference.step, keys, params, sharding, capacity, batch_size, transform)

    def description() -> dict[str, Any]:
        make_step, numbers = prepared.recipe.make_step, prepared.numbers
        return describe_run(make_step, numbers, prepared.state, key, data, batch_size, transform)

    reading = data.open(keys.order, batch_size, capacity, sharding, check)
    with opened(checkpoint, description) as saver, reading as window:
        began = time.perf_counter()
        chunks = Chunks(prepared, window(0))
        score = None
        if validate is not None:
            score = Score(inference, prepared.state, validate, batch_size, sharding, check_validation)
        start, prepared = [prepared.state], prepared._replace(state=None)
        outcome = drive(
            Run(
                advance=lambda state, start, num: chunks(window(start), state, start, num),
                record=_record,
                progress=lambda step, chunk, state: Progress(step, chunk, state, partial(inference.posterior, state)),
                summary=lambda chunk, state: f"objective {np.mean(chunk['objective']):.4g}",
                validate=score,
            ),
            start,
            steps=steps,
            capacity=capacity,
            every=every or 0,
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
