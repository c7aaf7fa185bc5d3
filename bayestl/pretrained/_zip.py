"""Zip archives as bytes: stored members are views on the file, compressed ones are unpacked within bounds."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from bayestl._limits import check_zip_directory
from bayestl.pretrained._weights import mapped

_CHUNK = 1 << 24
_LINE = 1 << 10
_MOST_DIRECTORY = 1 << 24


class Archive:
    """A zip file that is held open only as a map of its bytes."""

    def __init__(self, path: Path):
        self.path, self.data = path, mapped(path)
        self._unpacked = 0
        self.members: dict[str, zipfile.ZipInfo] = {}
        check_zip_directory(path, _MOST_DIRECTORY)
        try:
            with zipfile.ZipFile(path) as opened:
                infos = opened.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, OSError) as error:
            raise ValueError(f"it is a zip archive that is cut short or damaged ({error})") from error
        for info in infos:
            if info.filename in self.members:
                raise ValueError(f"its member {info.filename[:200]!r} comes twice")
            if not info.filename.endswith("/"):
                self.members[info.filename] = info

    @property
    def num_bytes(self) -> int:
        """Bytes of the archive."""
        return len(self.data)

    def size(self, name: str) -> int:
        """Bytes of a member when unpacked, as the archive announces them."""
        return self._info(name).file_size

    def member(self, name: str, most: int) -> memoryview:
        """The bytes of a member: a view where it is stored uncompressed, else a copy.

        Args:
            name: of the member.
            most: bytes that all members which are asked for may unpack to, together.

        Raises:
            ValueError: there is no such member, it is too large, encrypted, cut short, or its checksum is wrong.
        """
        info = self._info(name)
        packed = self._packed(info)
        if info.compress_type == zipfile.ZIP_STORED:
            content = packed
        elif info.compress_type == zipfile.ZIP_DEFLATED:
            self._unpacked += info.file_size
            if self._unpacked > most:
                raise ValueError(
                    f"its member {name[:200]!r} unpacks to {info.file_size:,} bytes from {info.compress_size:,}, and "
                    f"with those before it to {self._unpacked:,}, more than the {most:,} allowed; if this is as it "
                    "should be, give a larger max_bytes"
                )
            content = memoryview(_inflated(packed, info.file_size, name))
        else:
            raise ValueError(f"its member {name[:200]!r} has compression {info.compress_type}, which is not read")
        if len(content) != info.file_size or _checksum(content) != info.CRC:
            raise ValueError(
                f"its member {name[:200]!r} does not have the checksum that the archive keeps: the file is damaged "
                "(or was written by torch with set_crc32_options(False))"
            )
        return content

    def text(self, name: str, most: int, largest: int) -> memoryview:
        """The bytes of a member that is parsed, which takes many times its size.

        Raises:
            ValueError: it has more than ``largest`` bytes; and as for :meth:`member`.
        """
        if self.size(name) > largest:
            raise ValueError(
                f"its member {name[:200]!r} takes {self.size(name):,} bytes, where such a one may have {largest:,}"
            )
        return self.member(name, most)

    def is_packed(self, name: str) -> bool:
        """Whether the bytes of a member are a copy, and no view on the file."""
        return self._info(name).compress_type != zipfile.ZIP_STORED

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self.members:
            raise ValueError(f"its member {name[:200]!r} is missing")
        return self.members[name]

    def start(self, name: str) -> int:
        """Where the bytes of a member start in the file, found through its local header."""
        info = self._info(name)
        if info.flag_bits & 1:
            raise ValueError(f"its member {name[:200]!r} is encrypted")
        start = info.header_offset
        local = bytes(self.data[start : start + 30]) if start >= 0 else b""
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise ValueError(f"its member {name[:200]!r} is not where the archive says: the file is damaged")
        name_length, extra_length = struct.unpack("<HH", local[26:30])
        return start + 30 + name_length + extra_length

    def _packed(self, info: zipfile.ZipInfo) -> memoryview:
        """The bytes of a member as they lie in the file."""
        start = self.start(info.filename)
        if start + info.compress_size > len(self.data):
            raise ValueError(f"its member {info.filename[:200]!r} is cut short")
        return self.data[start : start + info.compress_size]


class View(io.RawIOBase):
    """Bytes in memory as a file for reading, without copying them as ``io.BytesIO`` would.

    Whatever length is asked for, no more memory is taken than there are bytes.
    """

    def __init__(self, content: memoryview):
        self._content, self._at = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, len(self._content))[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = len(self._content) if size < 0 else self._at + size
        piece = bytes(self._content[self._at : end])
        self._at += len(piece)
        return piece

    def readline(self, size: int | None = -1) -> bytes:
        pieces = []
        while piece := bytes(self._content[self._at : self._at + _LINE]):
            line, newline, _ = piece.partition(b"\n")
            pieces.append(line + newline)
            self._at += len(pieces[-1])
            if newline:
                break
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        piece = self._content[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _inflated(packed: memoryview, size: int, name: str) -> bytearray:
    """Unpack into one buffer of the announced size; a member that holds more is refused."""
    unpacker, made = zlib.decompressobj(-15), bytearray()
    try:
        for start in range(0, len(packed), _CHUNK):
            made += unpacker.decompress(packed[start : start + _CHUNK], size + 1 - len(made))
            if len(made) > size:
                raise ValueError(f"its member {name[:200]!r} unpacks to more than the announced {size:,} bytes")
    except zlib.error as error:
        raise ValueError(f"its member {name[:200]!r} cannot be unpacked: the file is damaged ({error})") from error
    return made


def _checksum(content: memoryview) -> int:
    value = 0
    for start in range(0, len(content), _CHUNK):
        value = zlib.crc32(content[start : start + _CHUNK], value)
    return value
