"""Safetensors files: written whole or not at all, opened with words where they are none."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bayestl import _limits

_LONGEST_HEADER = 100_000_000  # of a safetensors file; what announces a longer one is another kind of file


def write(path: Path, tensors: dict[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file that is complete or not there: under another name first, then moved.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: names and metadata so long that :func:`opened` would refuse the file.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        save_file(tensors, temporary, dict(metadata or {}))
        _check_header(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], writer: str) -> Iterator[Any]:
    """An open file, of which every error says which file it was.

    Args:
        path: the file.
        writer: the function that writes such files, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, another kind of file, one that was cut short, or whatever is found wrong inside.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder; give a file that {writer} wrote")
    try:
        _limits.check_regular(path)
        _check_header(path)
        with safe_open(path, framework="np") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read as a safetensors file: it is another kind of file, or was cut short ({error})"
        ) from error
    except RecursionError as error:
        raise ValueError(f"{path}: its header is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_header(path: str | os.PathLike[str]) -> None:
    """Raise when the header is longer than is read: its JSON takes many times as much memory."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if _limits.MOST_JSON < length <= _LONGEST_HEADER:
        raise ValueError(
            f"its header takes {length:,} bytes, more than the {_limits.MOST_JSON:,} allowed; keep notes and settings "
            "short"
        )
