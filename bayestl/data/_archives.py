"""Tar and zip archives of pictures, read in place: nothing is ever unpacked to a named file."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from bayestl._limits import check_regular, check_zip_directory

_CHUNK = 1 << 20
LARGEST_PICTURE = 1 << 28
_LARGEST_HEADER, _LONGEST_NAME = 1 << 20, 4096
_MOST_ZIP_DIRECTORY = 1 << 26
_FEW_MEMBERS, _BYTES_OF_MEMBER = 100_000, 64
_COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_TROUBLE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, OverflowError, MemoryError, NotImplementedError, ValueError),
)


class _Member(NamedTuple):
    """Where the bytes of a tar member start in the tar file, and how many there are."""

    start: int
    size: int


class _Refused(Exception):
    """An archive that is complete, but not read; the reason, which follows the archive's name."""


@contextlib.contextmanager
def archived(path: Path, max_bytes: int) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """The paths in an archive, folders with a final slash; and the bytes of a file in it.

    Args:
        path: a tar, tar.gz, tar.bz2 or zip archive.
        max_bytes: what an archive that is smaller may unpack to; to a temporary file for compressed tar archives.

    Raises:
        ValueError: no complete archive, one that unpacks to more, or one with links, devices, holes, members that point
            outside or two members of one name.
    """
    check_regular(path)
    with contextlib.ExitStack() as stack:
        try:
            with open(path, "rb") as file:
                head = file.read(4)
            names, read = (_zip if head[:2] == b"PK" else _tar)(path, max(max_bytes, path.stat().st_size), stack)
        except _Refused as error:
            raise ValueError(f"{path.name} {error}") from None
        except _TROUBLE as error:
            raise ValueError(
                f"{path.name} is not a complete tar, tar.gz, tar.bz2 or zip archive: {error}; copy it again"
            ) from None

        def content(name: str) -> bytes:
            try:
                return read(name)
            except _TROUBLE as error:
                raise ValueError(
                    f"{name!r} of {path.name} cannot be unpacked: {error}; copy the archive again"
                ) from None

        yield names, content


def _tar(path: Path, most: int, stack: contextlib.ExitStack) -> tuple[list[str], Callable[[str], bytes]]:
    file: BinaryIO = stack.enter_context(open(path, "rb"))  # noqa: SIM115  # the stack closes it
    head = file.read(3)
    file.seek(0)
    unpack = next((reader for magic, reader in _COMPRESSED.items() if head.startswith(magic)), None)
    most_members = path.stat().st_size // tarfile.BLOCKSIZE
    if unpack is not None:
        # Empty members compress to almost nothing.
        most_members = _FEW_MEMBERS + path.stat().st_size // _BYTES_OF_MEMBER
        packed, file = unpack(file), stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        _copy(packed, file, most)
    members = _tar_members(file, most_members)

    def read(name: str) -> bytes:
        start, size = members[name]
        file.seek(start)
        return file.read(size)

    return list(members), read


def _copy(packed: Any, file: BinaryIO, most: int) -> None:
    """Unpack to a temporary file, for reading in any order."""
    while piece := packed.read(_CHUNK):
        if file.tell() + len(piece) > most:
            raise _Refused(
                f"unpacks to more than the {most:,} bytes allowed; if this is as it should be, give a larger max_bytes"
            )
        file.write(piece)
    file.seek(0)


def _tar_members(file: BinaryIO, most: int) -> dict[str, _Member]:
    """Members by path, folders with a final slash."""
    members: dict[str, _Member] = {}
    short_reads: Any = _ShortReads(file)
    with tarfile.open(fileobj=short_reads, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # each may hold a copy of headers that are said to be of all
            path = _checked_path(member.name)
            if member.size < 0:
                raise tarfile.ReadError(f"member {member.name!r} has {member.size} bytes")
            if not (member.isfile() or member.isdir()):
                raise _Refused(f"has a member {member.name!r} that is a link or a device; such are refused")
            if member.issparse():
                raise _Refused(f"has a member {member.name!r} with holes, which is no picture; such are refused")
            _add(members, f"{path}{'/' if member.isdir() else ''}", _Member(member.offset_data, member.size), most)
        # An archive ends with blocks of zeros; one cut between its members is otherwise read as a shorter one.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends too early")
    return members


class _ShortReads:
    """A file of which the headers of a tar archive are read, and no more than headers take."""

    def __init__(self, file: BinaryIO):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header takes {size:,} bytes")
        return self.file.read(size)


def _zip(path: Path, most: int, stack: contextlib.ExitStack) -> tuple[list[str], Callable[[str], bytes]]:
    try:
        check_zip_directory(path, _MOST_ZIP_DIRECTORY)
    except ValueError as error:
        raise _Refused(f"is refused: {error}") from None
    archive = stack.enter_context(zipfile.ZipFile(path))
    members: dict[str, _Member] = {}
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name, mode = _checked_path(info.filename), info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _Refused(f"has a member {info.filename!r} that is a link or a device; such are refused")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Refused(f"has a member {info.filename!r} that is encrypted, or compressed in an unusual way")
        path_in_archive = f"{name}{'/' if info.is_dir() else ''}"
        _add(members, path_in_archive, _Member(0, info.file_size), len(archive.infolist()))
        infos[path_in_archive] = info
    if sum(member.size for member in members.values()) > most:
        raise _Refused(
            f"unpacks to more than the {most:,} bytes allowed; if this is as it should be, give a larger max_bytes"
        )

    def read(name: str) -> bytes:
        with archive.open(infos[name]) as file:
            return file.read()

    return list(members), read


def _checked_path(name: str) -> PurePosixPath:
    if len(name) > _LONGEST_NAME:
        raise _Refused(
            f"has a member whose name has {len(name):,} letters, {name[:40]!r}...; {_LONGEST_NAME} are allowed"
        )
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise _Refused(f"has a member {name[:200]!r}, which points outside; such archives are refused")
    return path


def _add(members: dict[str, _Member], path: str, member: _Member, most: int) -> None:
    if path in members and not path.endswith("/"):
        raise _Refused(f"has two members of the name {path[:200]!r}; which is meant is not clear, so it is refused")
    if member.size > LARGEST_PICTURE:
        raise _Refused(
            f"has a member {path[:200]!r} of {member.size:,} bytes; pictures have {LARGEST_PICTURE:,} at most"
        )
    members[path] = member
    if len(members) > most:
        raise _Refused(f"has more than {most:,} members, which is more than its size allows")
