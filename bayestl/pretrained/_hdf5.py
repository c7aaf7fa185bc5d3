"""HDF5 as a dict of data sets: every link is looked at before it is followed, and none may leave the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from bayestl.pretrained._weights import native, num_bytes, numeric

_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_DEEPEST = 64


@contextlib.contextmanager
def opened(file: Any) -> Iterator[Any]:
    """An HDF5 file for reading; whatever the HDF5 library says of a damaged one becomes a ValueError.

    Args:
        file: a path, or a binary file.

    Raises:
        ImportError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError('reading HDF5 files needs h5py: pip install "bayestl[keras]", or pip install h5py') from error
    try:
        with h5py.File(file, "r") as root:
            yield root
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it cannot be read as HDF5: it is cut short or damaged ({str(error)[:300]})") from error


def datasets(root: Any) -> dict[str, Any]:
    """The data sets of a file with their paths, in the order of the file; nothing is read yet.

    Raises:
        ValueError: links or data sets that lead out of the file, groups that hold each other.
    """
    import h5py
    import h5py.h5o

    datasets_by_path: dict[str, Any] = {}
    visited = set()

    def visit(group: Any, prefix: str, depth: int) -> None:
        address = h5py.h5o.get_info(group.id).addr
        if address in visited or depth > _DEEPEST:
            raise ValueError(f"group {prefix[:200]!r} is reached in two ways, or lies deeper than {_DEEPEST} groups")
        visited.add(address)
        for name in group:
            path = f"{prefix}{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError(
                    f"{path[:200]!r} is a link ({type(link).__name__}), which may lead to another file; weight files "
                    "need none, so it was not followed"
                )
            item = group[name]
            if isinstance(item, h5py.Group):
                visit(item, f"{path}/", depth + 1)
            elif isinstance(item, h5py.Dataset):
                datasets_by_path[path] = item

    visit(root, "", 0)
    return datasets_by_path


def size(name: str, dataset: Any) -> int:
    """Bytes that the numbers of a data set take."""
    if dataset.shape is None:
        raise ValueError(f"array {name[:200]!r} is empty")
    return num_bytes(dataset.shape, numeric(name, dataset.dtype))


def array(name: str, dataset: Any) -> np.ndarray:
    """The numbers of a data set.

    Raises:
        ValueError: they lie in other files, or are compressed by something that HDF5 itself does not bring.
    """
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"array {name[:200]!r} lies in other files, not opened; weight files hold their own")
    settings = dataset.id.get_create_plist()
    filters = {settings.get_filter(k)[0] for k in range(settings.get_nfilters())}
    if not filters <= set(_FILTERS):
        raise ValueError(f"array {name[:200]!r} is compressed by filters {sorted(filters)}; {_FILTERS} are read")
    made = np.empty(dataset.shape, dataset.dtype)
    if made.size:
        dataset.read_direct(made) if made.ndim else made.__setitem__((), dataset[()])
    return native(made.view(numeric(name, made.dtype)))


def attribute(item: Any, name: str) -> Any:
    """An attribute as text, a list of text, or None; long lists are kept in pieces ``name0, name1, ...``."""
    if name in item.attrs:
        return _text(item.attrs[name])
    pieces: list[Any] = []
    while f"{name}{len(pieces)}" in item.attrs:
        pieces.append(_text(item.attrs[f"{name}{len(pieces)}"]))
    return [entry for piece in pieces for entry in piece] if pieces else None


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | list | tuple):
        return [_text(entry) for entry in value]
    return value
