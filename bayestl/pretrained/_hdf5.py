"""HDF5 as data sets and text, read by a process whose time and memory are limited."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bayestl.pretrained._weights import native, num_bytes, numeric

_WORKER = Path(__file__).with_name("_hdf5_worker.py")
_SECONDS, _BYTES_PER_SECOND = 60.0, 1 << 22
_LONGEST_LINE = 1 << 28


class DataSet(NamedTuple):
    """What a file says of one array.

    Attributes:
        shape: None where there are no numbers, not even none.
        dtype: of the numbers; of objects where they are none.
        described: the dtype in words.
    """

    shape: tuple[int, ...] | None
    dtype: np.dtype
    described: str

    def size(self, name: str) -> int:
        """Bytes that the numbers take.

        Raises:
            ValueError: they are none.
        """
        if self.shape is None:
            raise ValueError(f"array {name[:200]!r} is empty")
        if self.dtype.hasobject:
            raise ValueError(
                f"array {name[:200]!r} has dtype {self.described}; weights are bool, int, float or complex"
            )
        return num_bytes(self.shape, numeric(name, self.dtype))


class Contents:
    """What an HDF5 file holds.

    Attributes:
        datasets: path to data set, in the order of the file.
        attributes: path of every group (the whole file: ``""``) to the text that Keras leaves there.
    """

    def __init__(self, worker: _Worker):
        said = worker.line()
        self._worker = worker
        self.datasets = {
            path: DataSet(None if shape is None else tuple(shape), np.dtype(dtype), described)
            for path, shape, dtype, described in said["datasets"]
        }
        self.attributes: dict[str, dict[str, Any]] = said["attributes"]

    def attribute(self, group: str, name: str) -> Any:
        """An attribute as text, a list of text, or None; long lists are kept in pieces ``name0, name1, ...``."""
        attributes = self.attributes[group]
        if name in attributes:
            return attributes[name]
        pieces: list[Any] = []
        while isinstance(piece := attributes.get(f"{name}{len(pieces)}"), list):
            pieces.append(piece)
        return [entry for piece in pieces for entry in piece] if pieces else None

    def arrays(self, paths: Sequence[str]) -> Iterator[np.ndarray]:
        """The arrays at ``paths``, in their order; to be asked for once.

        Raises:
            ValueError: one of them lies in other files, or cannot be unpacked.
        """
        self._worker.ask(list(paths))
        for path in paths:
            shape, dtype, _ = self.datasets[path]
            array = np.empty(shape or (), dtype)
            if self._worker.line()["bytes"] != array.nbytes:
                raise ValueError(f"array {path[:200]!r} has other numbers than it announces: the file is damaged")
            self._worker.read_into(array)
            yield native(array.view(numeric(path, dtype)))


class _Worker:
    """The process that reads."""

    def __init__(self, process: subprocess.Popen[bytes]):
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.input, self.output = process, process.stdin, process.stdout
        self.is_late = False

    def end_late(self) -> None:
        self.is_late = True
        self.process.kill()

    def ask(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # where it has ended, the next line says so
            self.input.write(json.dumps(message).encode() + b"\n")
            self.input.flush()

    def line(self) -> dict[str, Any]:
        line = self.output.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            self._ended()
        message = json.loads(line)
        if "error" in message:
            raise ValueError(message["error"])
        return message

    def read_into(self, array: np.ndarray) -> None:
        if array.nbytes and self.output.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:  # pyright: ignore
            self._ended()

    def _ended(self) -> None:
        if self.is_late:
            raise ValueError("HDF5 takes too long to read it, so it was given up: the file is damaged or hostile")
        raise ValueError(
            f"it cannot be read as HDF5: it is cut short or damaged (the process that read it ended with "
            f"{self.process.wait()})"
        )


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], start: int = 0, length: int | None = None) -> Iterator[Contents]:
    """An HDF5 file for reading, in a process of its own; whatever happens there becomes a ValueError here.

    Args:
        path: the file.
        start: where the HDF5 file starts in it.
        length: how long it is; None for all of ``path``.

    Raises:
        ImportError: h5py is not installed.
        ValueError: it is no HDF5 file, or cut short or damaged; it takes more memory than its arrays, or hangs.
    """
    if not _has_h5py():
        raise ImportError('reading HDF5 files needs h5py: pip install "bayestl[keras]", or pip install h5py')
    command = [sys.executable, "-I", "-S", str(_WORKER)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    worker = _Worker(process)
    size = Path(path).stat().st_size if length is None else length
    timer = threading.Timer(_SECONDS + size / _BYTES_PER_SECOND, worker.end_late)
    timer.daemon = True
    timer.start()
    try:
        worker.ask({"path": os.path.abspath(path), "start": start, "length": length, "sys_path": sys.path})
        yield Contents(worker)
    finally:
        timer.cancel()
        worker.process.kill()
        worker.process.wait()
        with contextlib.suppress(OSError):
            worker.input.close()
        worker.output.close()


def _has_h5py() -> bool:
    try:
        return importlib.util.find_spec("h5py") is not None
    except ValueError:  # it is set to None among the loaded modules
        return False
