"""Msgpack looked through before it is unpacked: its own library makes room for whatever lengths a file announces."""

from __future__ import annotations

_MOST_NODES = 1_000_000

# First byte -> bytes that follow it, of what has one size.
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4}
_FIXED |= {0xD3: 8}
# First byte -> bytes of the length that follows it.
_TEXT = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSION = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSION = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_CONTAINER = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}  # and how many objects an entry is


def check(data: memoryview) -> None:
    """Raise unless ``data`` is one complete object whose lists and maps announce no more than there is.

    What Flax's extensions hold is msgpack again, and is looked through in the same way.

    Raises:
        ValueError: it is cut short, damaged, or has more than a million parts.
    """
    _check(data, inside=False)


def _check(data: memoryview, inside: bool) -> None:
    at, pending, num_nodes = 0, 1, 0

    def number(width: int) -> int:
        nonlocal at
        at += width
        if at > len(data):
            raise ValueError("it ends too early")
        return int.from_bytes(data[at - width : at], "big")

    while pending:
        pending, num_nodes = pending - 1, num_nodes + 1
        if num_nodes > _MOST_NODES:
            raise ValueError(f"it has more than {_MOST_NODES:,} parts")
        first = number(1)
        if first <= 0x7F or first >= 0xE0:
            continue
        if first <= 0x9F:
            pending += (first & 0x0F) * (2 if first <= 0x8F else 1)
        elif first <= 0xBF:
            number(first & 0x1F)
        elif first in _FIXED:
            number(_FIXED[first])
        elif first in _TEXT:
            number_of_bytes = number(_TEXT[first])
            at = _beyond(data, at, number_of_bytes)
        elif first in _CONTAINER:
            width, objects = _CONTAINER[first]
            pending += number(width) * objects
        elif first in _EXTENSION or first in _FIXED_EXTENSION:
            length = _FIXED_EXTENSION[first] if first in _FIXED_EXTENSION else number(_EXTENSION[first])
            code, start = number(1), at
            at = _beyond(data, at, length)
            if code in (1, 2, 3) and not inside:
                _check(data[start:at], inside=True)
        else:
            raise ValueError(f"the byte {first:#x} begins nothing")
        if pending > len(data) - at:  # each object takes a byte at least
            raise ValueError(f"its lists announce {pending:,} more parts, where {len(data) - at:,} bytes are left")
    if at != len(data):
        raise ValueError(f"{len(data) - at:,} bytes follow its end")


def _beyond(data: memoryview, at: int, length: int) -> int:
    if at + length > len(data):
        raise ValueError("it ends too early")
    return at + length
