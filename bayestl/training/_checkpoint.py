"""Runs that survive being killed: Orbax saves state, order of the data and history between chunks."""

from __future__ import annotations

import contextlib
import logging
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl.training._identity import OtherRun, compare, describe_run, digest
from bayestl.training._lock import Lock

__all__ = ["Checkpoint", "Saved", "Saver", "describe_run", "opened"]


class Checkpoint(NamedTuple):
    """Where a run is saved, and how often. A run that is started again with the same arguments continues from there.

    The step, the method's state and the history are saved; keys and the order of the data follow from the step. The
    result is the same, bit for bit, as that of a run that was never stopped. Saving happens in the background. A
    checkpoint becomes visible only when it is complete, so a run that is killed leaves the previous one. If a
    checkpoint cannot be written, that is a warning, and the run tries again at the next. A checkpoint whose numbers are
    not those that were written is skipped in favour of the one before.

    A checkpoint belongs to one run: to the key, the data, the start, the numbers of the method and the traced program
    of its step. Only one run at a time can use a directory.

    Attributes:
        directory: a directory for this run alone; created if missing.
        every: steps between checkpoints, which are saved at the ends of chunks.
        keep: how many of the latest checkpoints to keep, >= 1; with 2 there is one to fall back on.
    """

    directory: str | Path
    every: int = 1000
    keep: int = 2


class Saved(NamedTuple):
    """What a run continues from.

    Attributes:
        step: steps taken.
        state: the method's state.
        history: the method's infos so far.
    """

    step: int
    state: Any
    history: dict[str, np.ndarray]


class Saver:
    """One run's checkpoints. A save that fails is a warning, and is tried again at the next checkpoint.

    Args:
        checkpoint: where and how often.
        run: from :func:`describe_run`.

    Raises:
        ValueError: settings out of range, or a directory that another run is using.
        OSError: a directory that cannot be written.
    """

    def __init__(self, checkpoint: Checkpoint, run: dict[str, Any]):
        if checkpoint.every < 1 or checkpoint.keep < 1:
            raise ValueError(
                f"checkpoint has every={checkpoint.every} and keep={checkpoint.keep}; both must be 1 or more"
            )
        self._every, self._keep, self._run = checkpoint.every, checkpoint.keep, run
        self._directory = Path(checkpoint.directory).absolute()
        _check_writable(self._directory)
        self._lock = Lock(self._directory)
        logging.getLogger("absl").addFilter(_not_of_orbax)
        try:
            self._manager = self._opened()
        except BaseException:
            self._released()
            raise
        self._last = 0
        self._unsaved: Saved | None = None

    def _opened(self) -> Any:
        import orbax.checkpoint as ocp

        self._ocp = ocp
        options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, create=True)
        return ocp.CheckpointManager(self._directory, options=options)

    def restore(self, state: Any, steps: int) -> Saved | None:
        """The latest readable checkpoint, in the structure and on the devices of ``state``; None for a new run.

        Raises:
            ValueError: a checkpoint of another run, or of more than ``steps`` steps; checkpoints none of which can be
                read.
        """
        saved_steps = sorted(self._manager.all_steps(), reverse=True)
        for step in saved_steps:
            try:
                saved = self._read(step, state)
            except OtherRun as other:
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
        compare(run, self._run, f"the checkpoint of step {step} in {self._directory.name}")
        leaves, treedef = jax.tree.flatten(state)
        target = {str(i): _storable(leaf) for i, leaf in enumerate(leaves)}
        arrays = self._manager.restore(
            step, args=args.Composite(state=args.StandardRestore(target), history=args.StandardRestore())
        )
        history = {name: np.asarray(values) for name, values in (arrays["history"] or {}).items()}
        _check_digests(run["digests"], _digests(arrays["state"], history))
        restored = [_as_before(arrays["state"][str(i)], leaf) for i, leaf in enumerate(leaves)]
        return Saved(step, jax.tree.unflatten(treedef, restored), history)

    def _set_aside(self, step: int, error: Exception) -> None:
        target, number = self._directory / f"unreadable-{step}", 1
        while target.exists():
            number += 1
            target = self._directory / f"unreadable-{step}-{number}"
        (self._directory / str(step)).rename(target)
        warnings.warn(
            f"the checkpoint of step {step} in {self._directory.name} cannot be read ({_first_line(error)}); it was "
            f"renamed {target.name}, and the run falls back to the previous one",
            RuntimeWarning,
            stacklevel=4,
        )
        self._manager.reload()

    def due(self, step: int) -> bool:
        """Whether it is time to save."""
        return step - self._last >= self._every

    def save(self, step: int, state: Any, history: dict[str, np.ndarray]) -> None:
        """Save; returns once the arrays have been copied, and writes them in the background.

        Warns:
            RuntimeWarning: this save, or the previous one, could not be written.
        """
        if step <= self._last:
            return
        self._finish()
        self._unsaved, self._last = Saved(step, state, history), step
        try:
            self._start(self._unsaved)
        except Exception as error:  # whatever the file system makes the writer raise
            self._failed(error)

    def _start(self, saved: Saved) -> None:
        args = self._ocp.args
        arrays = {str(i): _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(saved.state))}
        run = {**self._run, "digests": _digests(arrays, saved.history)}
        self._manager.save(
            saved.step,
            args=args.Composite(
                run=args.JsonSave(run), state=args.StandardSave(arrays), history=args.StandardSave(saved.history)
            ),
        )

    def _finish(self) -> None:
        """Wait for the save in progress."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # as above; it comes from the thread that writes
            self._failed(error)
        else:
            self._unsaved = None if self._unsaved is None or self._is_there(self._unsaved.step) else self._unsaved

    def _is_there(self, step: int) -> bool:
        return (self._directory / str(step)).is_dir()

    def _failed(self, error: Exception) -> None:
        step = self._unsaved.step if self._unsaved is not None else self._last
        warnings.warn(
            f"the checkpoint of step {step} could not be written to {self._directory.name} ({_first_line(error)}); the "
            "run goes on, and tries again at the next checkpoint",
            RuntimeWarning,
            stacklevel=4,
        )
        # A writer that failed may keep its error, and what it had begun.
        with contextlib.suppress(Exception):
            self._manager.close()
        with contextlib.suppress(Exception):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._manager = self._opened()

    def close(self) -> None:
        """Wait for the save in progress; try a failed one once more."""
        try:
            self._finish()
            if self._unsaved is not None:
                try:
                    self._start(self._unsaved)
                except Exception as error:  # as above
                    self._failed(error)
                else:
                    self._finish()
            with contextlib.suppress(Exception):
                self._manager.close()
        finally:
            self._released()

    def _released(self) -> None:
        logging.getLogger("absl").removeFilter(_not_of_orbax)
        self._lock.release()


def _check_writable(directory: Path) -> None:
    """Write and remove a file, to find out before the run whether it can be saved."""
    probe = directory / f".probe-{uuid.uuid4().hex}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        raise OSError(
            f"the checkpoint directory {directory} cannot be written ({_first_line(error)}); give another one, or make "
            "room"
        ) from None


def _first_line(error: Exception) -> str:
    """The type of an error and the first line of its message, truncated if long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """A filter for the tracebacks that Orbax logs in addition to raising: one warning of ours says what matters."""
    return "orbax" not in record.pathname


@contextlib.contextmanager
def opened(checkpoint: Checkpoint | None, run: Callable[[], dict[str, Any]]) -> Iterator[Saver | None]:
    """A saver that is always closed at the end; None without a checkpoint. ``run`` makes the description."""
    if checkpoint is None:
        yield None
        return
    saver = Saver(checkpoint, run())
    try:
        yield saver
    finally:
        saver.close()


# ---------------------------------------------------------------- arrays


def _digests(arrays: dict[str, Any], history: dict[str, np.ndarray]) -> dict[str, str | None]:
    """One digest per array; None for arrays that are partly held by other processes."""
    named = {**{f"state/{i}": x for i, x in arrays.items()}, **{f"history/{name}": x for name, x in history.items()}}
    return {name: digest([x]) if getattr(x, "is_fully_addressable", True) else None for name, x in named.items()}


def _check_digests(saved: dict[str, str | None], read: dict[str, str | None]) -> None:
    damaged = [name for name in read if saved.get(name) != read[name]]
    if damaged:
        raise ValueError(
            f"{len(damaged)} of {len(read)} arrays are not as they were written, the first is {damaged[0]!r}"
        )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    """A leaf in a form that Orbax can write: random keys become their numbers."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _storable(leaf: Any) -> jax.ShapeDtypeStruct:
    plain = _plain(leaf)
    return jax.ShapeDtypeStruct(plain.shape, plain.dtype, sharding=plain.sharding)


def _as_before(stored: Any, leaf: Any) -> Any:
    return jax.random.wrap_key_data(stored, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else stored
