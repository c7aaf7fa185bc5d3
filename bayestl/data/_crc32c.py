"""The checksum of TFRecord files: CRC-32C, masked, in NumPy."""

from __future__ import annotations

import numpy as np

_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8
# Long payloads are cut into lanes of this many bytes, which go through the table side by side.
_LANE = 256


def _step(state: np.ndarray) -> np.ndarray:
    """One bit further."""
    return np.where(state & 1, (state >> 1) ^ _POLYNOMIAL, state >> 1).astype(np.uint32)


def _tables() -> tuple[np.ndarray, list[list[int]]]:
    """What a byte does to the checksum; what a lane of zeros does, for each of the four bytes of the checksum."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = _step(table)
    shifts = []
    for byte in range(4):
        state = np.arange(256, dtype=np.uint32) << np.uint32(8 * byte)
        for _ in range(_LANE):
            state = table[state & 255] ^ (state >> 8)
        shifts.append(state.tolist())
    return table, shifts


_TABLE, _SHIFTS = _tables()
_BYTES = _TABLE.tolist()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as RFC 3720 has it.

    A checksum is linear in the bits that it is of: the lanes' own are shifted past the lanes behind them, and added.
    """
    if len(data) < 2 * _LANE:
        state = 0xFFFFFFFF
        for byte in data:
            state = _BYTES[(state ^ byte) & 255] ^ (state >> 8)
        return state ^ 0xFFFFFFFF
    # The start value changes the first four bytes; zeros before them change nothing then.
    padded = np.zeros(-len(data) % _LANE + len(data), np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF
    lanes = padded.reshape(-1, _LANE)
    states = np.zeros(len(lanes), np.uint32)
    for column in np.ascontiguousarray(lanes.T):
        states = _TABLE[(states ^ column) & 255] ^ (states >> 8)
    first, second, third, fourth = _SHIFTS
    total = 0
    for state in states.tolist():
        total = first[total & 255] ^ second[total >> 8 & 255] ^ third[total >> 16 & 255] ^ fourth[total >> 24] ^ state
    return total ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord files hold it, so that one of data that hold checksums means something too."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
