"""CRC-32C against the vectors of RFC 3720, and against its definition bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from bayestl.data._crc32c import crc32c, masked_crc32c


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # RFC 3720, appendix B.4; the last is the check value of every catalogue of checksums.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_values(data, expected):
    assert crc32c(data) == expected


def _bit_by_bit(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@pytest.mark.parametrize("length", [1, 255, 511, 512, 513, 767, 768, 1025, 5000])
def test_lanes_and_their_remainders(length):
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == _bit_by_bit(data)
    rotated = _bit_by_bit(data) >> 15 | _bit_by_bit(data) << 17
    assert masked_crc32c(data) == (rotated + 0xA282EAD8) % 2**32
