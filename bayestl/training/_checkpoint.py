"""Runs that can be killed: state, order of the data and history saved by Orbax between chunks."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree

_FORMAT = 1


class Checkpoint(NamedTuple):
    """Where a run is saved, and how often. A run that is started again with the same arguments goes on from there.

    The step, the method's state and the history are saved; keys and the order of the data follow from the step. The
    result has the same bits as that of a run never stopped. Saving goes on in the background; what is written becomes
    visible all at once, so that a killed run leaves the checkpoint before.

    Attributes:
        directory: a directory of this run's own; made when missing.
        every: steps between checkpoints, taken at the ends of chunks.
        keep: how many of the latest checkpoints are kept, >= 1; 2 leaves one to fall back on.
    """

    directory: str | Path
    every: int = 1000
    keep: int = 2


class Saved(NamedTuple):
    """What a run goes on from.

    Attributes:
        step: steps taken.
        state: the method's state.
        history: the method's infos so far.
    """

    step: int
    state: Any
    history: dict[str, np.ndarray]


def describe_run(dynamic: Any, state: Any, key: Any, data: Any, batch_size: int) -> dict[str, Any]:
    """What must be the same for a run to go on from a checkpoint, in words that JSON can hold."""
    from bayestl import __version__

    arrays = [np.asarray(x) for x in dynamic if _tree.is_concrete(x) and getattr(x, "is_fully_addressable", True)]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return {
        "format": _FORMAT,
        "version": __version__,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "method": f"{type(state).__module__}.{type(state).__qualname__}",
        "state": {path: [list(x.shape), str(x.dtype)] for path, x in _tree.by_paths(state).items()},
        "numbers": digest.hexdigest(),
        "key": np.asarray(jax.random.key_data(key)).ravel().tolist(),
        "num_examples": int(data.num_examples),
        "batch_size": int(batch_size),
    }


class Saver:
    """One run's checkpoints.

    Args:
        checkpoint: where and how often.
        run: from :func:`describe_run`.
    """

    def __init__(self, checkpoint: Checkpoint, run: dict[str, Any]):
        import orbax.checkpoint as ocp

        if checkpoint.every < 1 or checkpoint.keep < 1:
            raise ValueError(
                f"checkpoint has every={checkpoint.every} and keep={checkpoint.keep}; both must be 1 or more"
            )
        self._ocp, self._every, self._run = ocp, checkpoint.every, run
        self._directory = Path(checkpoint.directory).absolute()
        self._options = ocp.CheckpointManagerOptions(max_to_keep=checkpoint.keep, create=True)
        self._manager = ocp.CheckpointManager(self._directory, options=self._options)
        self._last = 0

    def restore(self, state: Any, steps: int) -> Saved | None:
        """The latest checkpoint that can be read, in the structure and on the devices of ``state``; None when new.

        Raises:
            ValueError: a checkpoint of another run, one of more than ``steps`` steps, or none that can be read although
                there are some.
        """
        saved_steps = sorted(self._manager.all_steps(), reverse=True)
        for step in saved_steps:
            try:
                saved = self._read(step, state)
            except _OtherRun as other:
                raise ValueError(str(other)) from None
            except Exception as error:  # a file cut short raises whatever its reader happens to trip over
                self._set_aside(step, error)
                continue
            if step > steps:
                raise ValueError(
                    f"the latest checkpoint in {self._directory.name} is of step {step}, beyond steps={steps}; ask for "
                    f"{step} steps or more, or give this run a directory of its own"
                )
            self._last = step
            return saved
        if saved_steps:
            raise ValueError(
                f"none of the checkpoints in {self._directory.name} can be read (steps {sorted(saved_steps)}; they "
                "were renamed unreadable-*); remove the directory to start over"
            )
        return None

    def _read(self, step: int, state: Any) -> Saved:
        args = self._ocp.args
        run = self._manager.restore(step, args=args.Composite(run=args.JsonRestore()))["run"]
        self._compare(run, step)
        leaves, treedef = jax.tree.flatten(state)
        target = {str(i): _storable(leaf) for i, leaf in enumerate(leaves)}
        found = self._manager.restore(
            step, args=args.Composite(state=args.StandardRestore(target), history=args.StandardRestore())
        )
        restored = [_as_before(found["state"][str(i)], leaf) for i, leaf in enumerate(leaves)]
        history = {name: np.asarray(values) for name, values in (found["history"] or {}).items()}
        return Saved(step, jax.tree.unflatten(treedef, restored), history)

    def _compare(self, run: dict[str, Any], step: int) -> None:
        where = f"the checkpoint of step {step} in {self._directory.name}"
        fix = "give this run a directory of its own, or the arguments of the one that was saved"
        if run["format"] > _FORMAT:
            raise _OtherRun(
                f"{where} has format {run['format']}, and this version of bayestl reads {_FORMAT}; upgrade it"
            )
        if run["method"] != self._run["method"]:
            raise _OtherRun(f"{where} is of another method: {run['method']} against {self._run['method']}; {fix}")
        differing = [
            p for p in {**run["state"], **self._run["state"]} if run["state"].get(p) != self._run["state"].get(p)
        ]
        if differing:
            path = differing[0]
            raise _OtherRun(
                f"{where} is of another model: at {path!r} it has {run['state'].get(path)}, this run has "
                f"{self._run['state'].get(path)}, and {len(differing)} arrays differ in all; {fix}"
            )
        for name, what in (
            ("key", "was started with another key, which orders the data"),
            ("num_examples", "saw another number of examples"),
            ("batch_size", "used another batch size"),
            ("numbers", "had other numbers in its method (prior, likelihood, tempers, rates)"),
        ):
            if run[name] != self._run[name]:
                detail = "" if name in ("key", "numbers") else f": {run[name]} against {self._run[name]}"
                raise _OtherRun(f"{where} {what}{detail}; {fix}")
        for name in ("version", "devices"):
            if run[name] != self._run[name]:
                warnings.warn(
                    f"{where} was written by {name} {run[name]}, and this is {self._run[name]}; the run goes on, but "
                    "its last bits may differ from those of a run never stopped",
                    RuntimeWarning,
                    stacklevel=5,
                )

    def _set_aside(self, step: int, error: Exception) -> None:
        warnings.warn(
            f"the checkpoint of step {step} in {self._directory.name} cannot be read ({type(error).__name__}); it was "
            f"renamed unreadable-{step}, and the run falls back to the one before",
            RuntimeWarning,
            stacklevel=4,
        )
        (self._directory / str(step)).rename(self._directory / f"unreadable-{step}")
        self._manager.reload()

    def due(self, step: int) -> bool:
        """Whether it is time to save."""
        return step - self._last >= self._every

    def save(self, step: int, state: Any, history: dict[str, np.ndarray]) -> None:
        """Save; returns when the arrays have been copied, the writing goes on."""
        if step <= self._last:
            return
        args = self._ocp.args
        arrays = {str(i): _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        self._manager.save(
            step,
            args=args.Composite(
                run=args.JsonSave(self._run), state=args.StandardSave(arrays), history=args.StandardSave(history)
            ),
        )
        self._last = step

    def close(self) -> None:
        """Wait for what is still being written."""
        self._manager.wait_until_finished()
        self._manager.close()


class _OtherRun(Exception):
    """A checkpoint that belongs to another run."""


@contextlib.contextmanager
def opened(checkpoint: Checkpoint | None, run: Any) -> Iterator[Saver | None]:
    """A saver that is closed at the end, whatever happens; None without a checkpoint. ``run`` makes the description."""
    if checkpoint is None:
        yield None
        return
    saver = Saver(checkpoint, run())
    try:
        yield saver
    finally:
        saver.close()


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    """A leaf as Orbax can write it: keys as their numbers."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _storable(leaf: Any) -> jax.ShapeDtypeStruct:
    plain = _plain(leaf)
    return jax.ShapeDtypeStruct(plain.shape, plain.dtype, sharding=plain.sharding)


def _as_before(stored: Any, leaf: Any) -> Any:
    return jax.random.wrap_key_data(stored, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else stored
