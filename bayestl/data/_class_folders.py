"""Pictures in class folders, on disk or in a tar archive: what there is, under which name, and its bytes."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class ClassFolders(NamedTuple):
    """The files of every class.

    Attributes:
        names: class to the paths ``class/file`` in it, both sorted.
        read: path -> bytes of the file.
    """

    names: dict[str, list[str]]
    read: Callable[[str], bytes]


@contextlib.contextmanager
def class_folders(path: Path, root: str | None) -> Iterator[ClassFolders]:
    """What lies in a folder or a tar archive of class folders.

    Raises:
        ValueError: no archive, members that could leave the folder, files outside class folders, a class without one.
    """
    if path.is_dir():
        yield _sorted_out(path.name, _in_folder(path), root, lambda name: (path / name).read_bytes())
    else:
        with _tar(path) as archive:
            members = _in_archive(path.name, archive)
            yield _sorted_out(path.name, list(members), root, lambda name: _bytes_of(archive, members[name]))


def _in_folder(path: Path) -> list[str]:
    """Files, and folders with a final slash, relative to ``path``."""
    items = sorted(path.rglob("*"))
    return [f"{item.relative_to(path).as_posix()}{'/' if item.is_dir() else ''}" for item in items]


@contextlib.contextmanager
def _tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar archive that can be read in any order; a compressed one is unpacked to a temporary file for that."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if compressed:
                packed, file = gzip.GzipFile(fileobj=file), stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(packed, file)
                file.seek(0)
            archive = stack.enter_context(tarfile.open(fileobj=file, mode="r:"))
            archive.getmembers()
            # An archive ends with blocks of zeros; one cut between its members is otherwise read as a shorter one.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it ends too early")
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path.name} is not a complete tar or tar.gz archive: {error}; copy it again") from None
        yield archive


def _in_archive(name: str, archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Members by path, folders with a final slash. None of them is ever written to disk."""
    members = {}
    for member in archive.getmembers():
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name:
            raise ValueError(f"{name} has a member {member.name!r}, which points outside; such archives are refused")
        if not (member.isfile() or member.isdir()):
            raise ValueError(f"{name} has a member {member.name!r} that is a link or a device; such are refused")
        members[f"{path}{'/' if member.isdir() else ''}"] = member
    return members


def _bytes_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _sorted_out(where: str, paths: list[str], root: str | None, read: Callable[[str], bytes]) -> ClassFolders:
    """Classes and their files from all paths; files whose names begin with a dot are left aside."""
    visible = [path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.split("/"))]
    prefix = f"{root.strip('/')}/" if root else _common_root(where, visible)
    inside = [path[len(prefix) :] for path in visible if path.startswith(prefix) and path != prefix]
    if not inside:
        raise ValueError(f"{where} holds no files{f' under {root}' if root else ''}; give a folder of class folders")
    names: dict[str, list[str]] = {}
    for path in sorted(inside):
        parts = path.split("/")
        if len(parts) > 2 and path.endswith("/"):
            continue
        if len(parts) != 2:
            raise ValueError(
                f"{where} has {prefix + path!r}, which is not class/picture; put every picture into the folder of its "
                "class, one level deep, or name the folder that holds the class folders: root="
            )
        names.setdefault(parts[0], []).extend([path] if parts[1] else [])
    for name, files in names.items():
        if not files:
            raise ValueError(f"class {name!r} of {where} has no picture; add some, or remove its folder")
    return ClassFolders(names, lambda name: read(prefix + name))


def _common_root(where: str, paths: list[str]) -> str:
    """The one folder that holds the class folders; empty where they lie at the top."""
    files = [path.split("/") for path in paths if not path.endswith("/")]
    if not files or {len(parts) for parts in files} != {3}:
        return ""
    tops = sorted({parts[0] for parts in files})
    if len(tops) > 1:
        raise ValueError(f"{where} has class folders in {', '.join(tops)}; choose one: root={tops[0]!r}")
    return f"{tops[0]}/"
