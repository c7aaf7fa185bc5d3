"""Many runs at once: settings and seeds as the members of one compiled program."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._applied import call_make_inference
from bayestl._arguments import check_arguments
from bayestl._data_size import sized, warn_of_size
from bayestl._types import Arrays, Data, Inference, Key, Params
from bayestl.passes import first_examples
from bayestl.training._checkpoint import Checkpoint, describe_run, opened
from bayestl.training._driver import Run, drive
from bayestl.training._loop import Recipe, Transform, as_seen, check_of_blocks, check_run, split_key
from bayestl.training._members import Guarded, MemberChunks, Members, Sized, Spread, Vectorize, posteriors, start
from bayestl.training._programs import program
from bayestl.training._progress import Callback, History, Progress
from bayestl.training._results import ManyResult


def fit_many(
    keys: Key,
    make_inference: Callable[[Any], Inference],
    settings: Arrays | None,
    params: Params,
    data: Data,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    transform: Transform | None = None,
    chunk_size: int = 100,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
    params_axis: int | None = None,
    data_axis: int | None = None,
    vectorize: Vectorize | None = None,
    devices: Sequence[Any] | None = None,
) -> ManyResult:
    """Run a method for many settings and seeds in one compiled program, each member as :func:`fit` would run it.

    Settings are traced: learning rates, prior scales, kappa and T can vary between members without recompilation, as
    long as the prior is built from them inside ``make_inference``. A member that becomes non-finite is frozen at the
    state before the step that failed and reported in ``failed``, while the others continue.

    Args:
        keys: (M,) keys, one per member.
        make_inference: setting -> :class:`Inference`, with the setting's numbers as they come (they are tracers).
        settings: pytree of arrays with a leading axis M, one entry per member; None where members differ in their keys
            alone.
        params: where to start.
        data: the training data. If they are in memory, each member orders them by its own key. The batches of a stream
            are shared, in the order given by the first of ``keys``, since a stream is read once for all members.
        steps: number of steps.
        epochs: instead of ``steps``, as in :func:`fit`.
        batch_size: examples per step, 1 to N; by default 64, or N if that is less.
        transform: ``(key, batch) -> batch``, inside the compiled program.
        chunk_size: steps between reports.
        callbacks: functions of :class:`Progress`, called after each chunk; True ends all runs.
        checkpoint: save all members as they go, and continue from the last checkpoint if there is one, as in
            :func:`fit`.
        progress: show a progress bar.
        params_axis: 0 if every member has its own start, in leaves with a leading axis M; None if they share one.
        data_axis: 0 if every member has its own data (``data.stack``); None if they share them.
        vectorize: how members share a device: ``jax.vmap`` for side by side, :func:`sequentially` for one after
            another. The default is side by side, except on CPUs if the network has convolutions, or if the states would
            not fit into the cache.
        devices: the devices over which members are spread; by default all.

    Raises:
        TypeError: a stream, if every member is to have its own data.
        ValueError: leading axes that differ, and whatever :func:`fit` raises.

    Warns:
        UserWarning: data of more or fewer examples than ``num_data`` of the first member's log joint.
        RuntimeWarning: members that became non-finite.
    """
    check_arguments(fit_many, locals(), skip=("steps", "epochs", "chunk_size"))
    num_members = _count(settings, keys)
    steps, batch_size, capacity = check_run(data, steps, batch_size, chunk_size, epochs)
    _check_axis("params", params, params_axis, num_members)
    if data_axis is not None:
        _check_resident(data)
    _check_axis("data", data, data_axis, num_members)
    check = _check_first(make_inference, settings, keys, params, data, params_axis, data_axis, transform)
    make_inference = Sized(make_inference, data.num_examples)
    devices = tuple(jax.devices() if devices is None else devices)[:num_members]
    spread = Spread(devices, jax.vmap)
    recipe = Recipe(Guarded(make_inference), capacity, batch_size, transform)
    members = Members(settings, keys, params if params_axis == 0 else None, data if data_axis == 0 else None)
    members = spread.place(jax.tree.map(lambda x: _pad(x, -num_members % len(devices)), members))
    shared_params = spread.place(None if params_axis == 0 else params, shared=True)

    began = time.perf_counter()
    carry: Any = program(start, (spread, make_inference), members, shared_params)(members, shared_params)

    def description() -> dict[str, Any]:
        return describe_run(
            lambda setting: make_inference(setting).step, settings, carry, keys, data, batch_size, transform,
            member_state=carry.state, own_data=data_axis == 0,
        )  # fmt: skip

    def member_states(carry: Any) -> Any:
        return jax.tree.map(lambda x: x[:num_members], carry.state)

    def posterior(state: Any) -> Any:
        return program(posteriors, make_inference, settings, state)(settings, state)

    def record(infos: Any, num: int) -> History:
        return {
            name: np.asarray(values)[:num_members, :num]
            for name, values in infos._asdict().items()
            if values is not None
        }

    def report(step: int, chunk: History, carry: Any) -> Progress:
        state = member_states(carry)
        return Progress(step, chunk, state, partial(posterior, state))

    with (
        opened(checkpoint, description) as saver,
        _opened(data if data_axis is None else None, keys, batch_size, capacity, spread, check) as window,
    ):
        chunks = MemberChunks(recipe, vectorize, devices, members, window(0), carry)
        first, carry = [carry], None
        outcome = drive(
            Run(
                advance=lambda carry, start, num: (*chunks(window(start), carry, start, num), True),
                record=record,
                progress=report,
                summary=lambda chunk, carry: _summary(chunk, np.asarray(carry.failed)[:num_members]),
                axis=1,
                states="states",
            ),
            first,
            steps=steps,
            capacity=capacity,
            callbacks=callbacks,
            saver=saver,
            progress=progress,
            compile_seconds=time.perf_counter() - began,
        )
    failed = np.asarray(outcome.state.failed)[:num_members]
    if (failed >= 0).any():
        warnings.warn(_failures(failed), RuntimeWarning, stacklevel=2)
    state = member_states(outcome.state)

    def posterior_of(m: int, state: Any) -> Any:
        return make_inference(jax.tree.map(lambda x: x[m], settings)).posterior(state)

    return ManyResult(
        posterior(state),
        state,
        outcome.history,
        failed,
        outcome.step,
        outcome.stopped,
        outcome.seconds,
        outcome.compile_seconds,
        posterior_of,
    )


@contextlib.contextmanager
def _opened(
    data: Any, keys: Key, batch_size: int, capacity: int, spread: Spread, check: Any
) -> Iterator[Callable[[int], Any]]:
    """The function from a step to the data that members share, on their devices; it returns None for None."""
    if data is None:
        yield lambda start: None
        return
    with data.open(split_key(keys[0]).order, batch_size, capacity, check=check) as window:
        if data.resident() is not None:
            resident = spread.place(window(0), shared=True)
            yield lambda start: resident
        else:
            yield lambda start: spread.place(window(start), shared=True)


def _pad(x: Any, padding: int) -> jax.Array:
    return jnp.concatenate([x, jnp.repeat(x[-1:], padding, axis=0)]) if padding else jnp.asarray(x)


def _count(settings: Any, keys: Key) -> int:
    if jnp.ndim(keys) != 1 or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError("keys must be an array of keys, one per member: jax.random.split(jax.random.key(0), M)")
    if isinstance(settings, list | dict) and not settings:
        raise ValueError("settings hold no array; give one entry per member, or None where they differ in their keys")
    _check_axis("settings", settings, 0, len(keys))
    return len(keys)


def _check_resident(data: Any) -> None:
    if not isinstance(data, Data) or data.resident() is None:
        raise TypeError(
            f"data is a {type(data).__name__}, which streams and has no leading axis of members; give data_axis=None, "
            "so that members share its batches, or btl.data.stack of data sets on the device"
        )


def _check_axis(name: str, tree: Any, axis: int | None, num_members: int) -> None:
    if axis is None:
        return
    if axis != 0:
        raise ValueError(f"{name}_axis is {axis}; it can be 0 (a leading member axis) or None (shared)")
    for path, leaf in _tree.by_paths(tree).items():
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != num_members:
            raise ValueError(
                f"{name} at {path!r} has shape {jnp.shape(leaf)}, but there are {num_members} keys: every leaf needs a "
                f"leading axis of {num_members}, one entry per member"
            )


def _check_first(make_inference, settings, keys, params, data, params_axis, data_axis, transform) -> Any:
    """Build the first member outside the program, where its checks see numbers, and check all data against it.

    Returns what a stream checks its blocks by.
    """
    first = call_make_inference(make_inference, jax.tree.map(lambda x: x[0], settings))
    warn_of_size(first, data.num_examples, stacklevel=3)
    first = sized(first, data.num_examples)
    start = jax.tree.map(lambda x: x[0], params) if params_axis == 0 else params
    examples = first_examples(data)
    if data_axis == 0:
        examples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), examples)
    check = check_of_blocks(first.check(start, *as_seen(examples, transform)), data, transform)
    first.init(keys[0], start)
    return check


def _summary(infos: dict[str, np.ndarray], failed: np.ndarray) -> str:
    alive = failed < 0
    mean = f"objective {np.mean(infos['objective'][alive]):.4g}" if alive.any() else "all members failed"
    return mean + (f", {np.sum(~alive)} of {len(failed)} frozen" if not alive.all() else "")


def _failures(failed: np.ndarray) -> str:
    bad = np.flatnonzero(failed >= 0)
    listed = ", ".join(f"{m} (step {failed[m]})" for m in bad[:8]) + (" ..." if len(bad) > 8 else "")
    return (
        f"{len(bad)} of {len(failed)} members became non-finite and were frozen at the state before: {listed}; a "
        "smaller learning rate, or a prior that is less sharp, may help"
    )
