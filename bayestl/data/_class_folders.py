"""Pictures in class folders, on disk or in an archive: what there is, under which name, and its bytes."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bayestl.data._archives import LARGEST_PICTURE, archived


class ClassFolders(NamedTuple):
    """The files of every class.

    Attributes:
        names: class to the paths ``class/file`` in it, both sorted.
        read: path -> bytes of the file.
    """

    names: dict[str, list[str]]
    read: Callable[[str], bytes]


@contextlib.contextmanager
def class_folders(path: Path, root: str | None, nested: bool, max_bytes: int) -> Iterator[ClassFolders]:
    """What lies in a folder or an archive of class folders.

    Args:
        path: of the folder or the archive.
        root: the folder inside that holds the class folders.
        nested: whether pictures may lie in folders inside the class folders.
        max_bytes: what an archive that is smaller may unpack to.

    Raises:
        ValueError: no archive, or one that unpacks to more; members that could leave the folder, or of one name; files
            outside class folders, a class without one; links that lead nowhere or in a circle; pipes and devices.
    """
    if path.is_dir():
        yield _sorted_out(path.name, in_folder(path), root, nested, lambda name: _bytes_of(path / name))
    else:
        with archived(path, max_bytes) as (members, read):
            yield _sorted_out(path.name, members, root, nested, read)


def _bytes_of(path: Path) -> bytes:
    if path.stat().st_size > LARGEST_PICTURE:
        raise ValueError(f"{path.name} takes more than {LARGEST_PICTURE:,} bytes, which no picture does")
    return path.read_bytes()


def in_folder(path: Path) -> list[str]:
    """Files, and folders with a final slash, relative to ``path``; links are followed.

    Raises:
        ValueError: a link that leads nowhere, or to a folder that holds it; a pipe, a socket or a device.
    """
    return sorted(_below(path, "", (path.stat().st_ino,)))


def _below(top: Path, prefix: str, around: tuple[int, ...]) -> Iterator[str]:
    """``around``: the folders that hold this one, by their numbers in the file system."""
    for entry in os.scandir(top / prefix):
        name = f"{prefix}{entry.name}"
        try:
            status = entry.stat()
        except OSError as error:
            raise ValueError(f"{top.name} has the link {name!r}, which leads nowhere; remove or mend it") from error
        if stat.S_ISDIR(status.st_mode):
            if status.st_ino in around and entry.is_symlink():
                raise ValueError(f"{top.name} has the link {name!r}, which leads to a folder that holds it; remove it")
            yield f"{name}/"
            yield from _below(top, f"{name}/", (*around, status.st_ino))
        elif stat.S_ISREG(status.st_mode):
            yield name
        else:
            raise ValueError(f"{top.name} has {name!r}, which is a pipe, a socket or a device; remove it")


def _sorted_out(
    where: str, paths: list[str], root: str | None, nested: bool, read: Callable[[str], bytes]
) -> ClassFolders:
    """Classes and their files from all paths; files whose names begin with a dot are left aside."""
    visible = [path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.split("/"))]
    prefix = f"{root.strip('/')}/" if root else _common_root(where, visible, nested)
    inside = [path[len(prefix) :] for path in visible if path.startswith(prefix) and path != prefix]
    if not inside:
        raise ValueError(f"{where} holds no files{f' under {root}' if root else ''}; give a folder of class folders")
    names: dict[str, list[str]] = {}
    for path in sorted(inside):
        parts = path.split("/")
        if len(parts) > 2 and path.endswith("/"):
            continue
        if len(parts) != 2 and not (nested and len(parts) > 2):
            raise ValueError(
                f"{where} has {prefix + path!r}, which is not class/picture; put every picture into the folder of its "
                "class, name the folder that holds the class folders with root=, or give nested=True where class "
                "folders have folders inside"
            )
        names.setdefault(parts[0], []).extend([path] if parts[-1] else [])
    for name, files in names.items():
        if not files:
            raise ValueError(f"class {name!r} of {where} has no picture; add some, or remove its folder")
    return ClassFolders(names, lambda name: read(prefix + name))


def _common_root(where: str, paths: list[str], nested: bool) -> str:
    """The one folder that holds the class folders; empty where they lie at the top."""
    files = [path.split("/") for path in paths if not path.endswith("/")]
    depths, tops = {len(parts) for parts in files}, sorted({parts[0] for parts in files})
    if not files or min(depths) < 3 or (nested and len(tops) > 1) or (not nested and depths != {3}):
        return ""
    if len(tops) > 1:
        raise ValueError(
            f"{where} has class folders in {', '.join(tops)}; choose one: root={tops[0]!r}; or, where these are the "
            "classes themselves, give nested=True"
        )
    return f"{tops[0]}/"
