"""One run at a time in a directory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import IO

import jax

NAME = "bayestl.lock"


class Lock:
    """A lock, held from construction to :meth:`release`, or until the process ends in any way.

    If the operating system or the file system has no such locks, nothing is locked.

    Args:
        directory: the directory to lock, which exists.

    Raises:
        ValueError: another run holds the lock; the message says which process on which host, and since when.
    """

    def __init__(self, directory: Path):
        self._file: IO[str] | None = None
        if jax.process_index() != 0:  # the processes of one run write together
            return
        try:
            import fcntl
        except ImportError:  # no such thing on this system
            return
        file = open(directory / NAME, "a+")  # noqa: SIM115, open as long as the run
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(file)
            file.close()
            raise ValueError(
                f"the checkpoint directory {directory.name} is in use by another run ({owner}); wait for it to end, or "
                "give this run a directory of its own"
            ) from None
        except OSError:
            file.close()
            return
        self._file = file
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
        file.flush()

    def release(self) -> None:
        """Release the lock. The file stays, since removing it could let two runs in."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def _owner(file: IO[str]) -> str:
    """Who holds the lock, as far as the file says."""
    try:
        file.seek(0)
        fields = json.load(file)
        return f"process {int(fields['pid'])} on {str(fields['host'])[:100]} since {str(fields['since'])[:30]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process is not named in the lock"
