"""Random access to TFRecord files, without TensorFlow."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from bayestl.data._crc32c import masked_crc32c

# A record is its length (8 bytes, little endian), a checksum of that (4), the payload, a checksum of the payload (4).
_HEADER, _FOOTER = 12, 4


@dataclasses.dataclass(frozen=True, eq=False)
class TFRecords:
    """Records of some files one after another, as bytes.

    Attributes:
        paths: the files.
        files: (N,) which of them holds each record.
        offsets: (N,) where its payload starts there.
        lengths: (N,) bytes of the payload.
    """

    paths: tuple[str, ...]
    files: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> bytes:
        """The payload of a record.

        Raises:
            ValueError: bytes other than those that were written.
        """
        path, length = self.paths[self.files[row]], int(self.lengths[row])
        # Opened anew each time, so that threads and processes share nothing.
        with open(path, "rb") as file:
            file.seek(int(self.offsets[row]))
            payload, footer = file.read(length), file.read(_FOOTER)
        if len(footer) < _FOOTER or masked_crc32c(payload) != struct.unpack("<I", footer)[0]:
            raise ValueError(
                f"the record at byte {self.offsets[row]} of {os.path.basename(path)} is damaged: its checksum is "
                "not that of its bytes; prepare or copy the file again"
            )
        return payload


def tfrecords(instructions: Iterable[Any]) -> TFRecords:
    """The records that a split asks for.

    Args:
        instructions: TFDS's ``file_instructions`` of the split: ``filename, skip, take, examples_in_shard``.

    Raises:
        ValueError: a file that is not a TFRecord file, or is damaged, that ends within a record, or that holds another
            number of records than TFDS wrote.
    """
    paths, files, offsets, lengths = [], [], [], []
    for number, part in enumerate(instructions):
        path = os.fspath(part.filename)
        starts, sizes = _scan(path)
        if len(starts) != part.examples_in_shard:
            raise ValueError(
                f"{os.path.basename(path)} holds {len(starts)} records, and its data set says "
                f"{part.examples_in_shard}; prepare or copy it again"
            )
        chosen = slice(part.skip, part.skip + part.take)
        paths.append(path)
        offsets.append(starts[chosen])
        lengths.append(sizes[chosen])
        files.append(np.full(len(offsets[-1]), number, np.int32))
    joined = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (files, offsets, lengths))
    return TFRecords(tuple(paths), *joined)


def _scan(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the payloads of one file start, and how long they are; reads nothing else of it."""
    size, position = os.path.getsize(path), 0
    offsets, lengths = [], []
    with open(path, "rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(_HEADER)
            length = 0
            if len(header) == _HEADER:
                length, checksum = struct.unpack("<QI", header)
                if masked_crc32c(header[:8]) != checksum:
                    raise ValueError(
                        f"{os.path.basename(path)} is damaged at byte {position}, or is not a TFRecord file: the "
                        "checksum of a record's length is wrong; prepare or copy it again"
                    )
            offsets.append(position + _HEADER)
            lengths.append(length)
            position += _HEADER + length + _FOOTER
    if position != size:
        raise ValueError(f"{os.path.basename(path)} ends within record {len(offsets) - 1}; prepare or copy it again")
    return np.asarray(offsets, np.int64), np.asarray(lengths, np.int64)
