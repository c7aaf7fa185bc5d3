"""Limits on what is taken from files, since anyone may have written them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MOST_JSON = 1 << 24
"""Bytes of one JSON text. Parsed, ``[[],[],...]`` takes some 25 times as much."""

_END, _LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_END_BYTES, _LOCATOR_BYTES, _END64_BYTES, _LONGEST_COMMENT = 22, 20, 56, 1 << 16


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise unless a path is a file, or a link to one: opening a pipe waits for ever, and a device has no end.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: a pipe, a socket, a device or a folder.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}; give the path of one") from None
    if not stat.S_ISREG(mode):
        kinds = {"a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
        kind = next((name for name, is_one in kinds.items() if is_one(mode)), "a device")
        raise ValueError(f"{Path(path).name!r} is {kind}, not a file; it was not opened")


def check_zip_directory(path: str | os.PathLike[str], most: int) -> None:
    """Raise when the list of members at the end of a zip archive takes more than ``most`` bytes.

    In memory each member takes about ten times as much as in that list. An archive without such a list is left to the
    reader, which has its own words for it.

    Raises:
        ValueError: it is longer.
    """
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - _END_BYTES - _LONGEST_COMMENT - _LOCATOR_BYTES - _END64_BYTES))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        return
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    if tail[max(0, at - _LOCATOR_BYTES) :].startswith(_LOCATOR):
        at64 = at - _LOCATOR_BYTES - _END64_BYTES
        if tail[max(0, at64) :].startswith(_END64):
            size = int.from_bytes(tail[at64 + 40 : at64 + 48], "little")
    if most < size <= length:
        raise ValueError(f"its list of members takes {size:,} bytes, more than the {most:,} allowed")
