"""Reads one HDF5 file, in a process of its own: a program, which imports nothing of bayestl.

A damaged or hostile HDF5 file can make its library hang, crash, or unpack a few bytes to any size. Here that ends this
process alone, whose memory is limited, and whose time ``_hdf5`` limits. They talk in lines of JSON, with the numbers of
each array after the line that announces it.
"""

from __future__ import annotations

import io
import json
import math
import re
import sys
from typing import Any

FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_DEEPEST = 64
_MOST_LETTERS = 1 << 24
_LARGEST_CHUNK = 1 << 26
_BASE = 1 << 30
# What Keras says of layers; long lists are kept in pieces ``name0, name1, ...``.
_ATTRIBUTES = re.compile(r"(layer_names|weight_names|name|keras_version|backend|model_config)\d*")


class Slice(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, path: str, start: int, length: int):
        self._file, self._start, self._length, self._at = open(path, "rb"), start, length, 0  # noqa: SIM115

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._length)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        content = self._file.read(max(0, min(len(buffer), self._length - self._at)))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


class Inventory:
    """All groups and data sets of a file; each link is looked at before it is followed, and none may leave the file."""

    def __init__(self, root: Any):
        self.datasets: dict[str, Any] = {}
        self.attributes: dict[str, dict[str, Any]] = {}
        self._visited: set[int] = set()
        self._letters = 0
        self._visit(root, "", 0)

    def described(self) -> dict[str, Any]:
        """For the other process."""
        datasets = [
            [path, None if dataset.shape is None else list(dataset.shape), dataset.dtype.str, str(dataset.dtype)[:200]]
            for path, dataset in self.datasets.items()
        ]
        for entry, dataset in zip(datasets, self.datasets.values(), strict=True):
            if dataset.dtype.hasobject or dataset.dtype.names or dataset.dtype.subdtype:
                entry[2] = "O"
        return {"datasets": datasets, "attributes": self.attributes}

    def _visit(self, group: Any, prefix: str, depth: int) -> None:
        import h5py
        import h5py.h5o

        address = h5py.h5o.get_info(group.id).addr
        if address in self._visited or depth > _DEEPEST:
            raise ValueError(f"group {prefix[:200]!r} is reached in two ways, or lies deeper than {_DEEPEST} groups")
        self._visited.add(address)
        self.attributes[prefix.rstrip("/")] = self._texts(group)
        for name in group:
            path = f"{prefix}{name}"
            self._count(len(path))
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError(
                    f"{path[:200]!r} is a link ({type(link).__name__}), which may lead to another file; weight files "
                    "need none, so it was not followed"
                )
            item = group[name]
            if isinstance(item, h5py.Group):
                self._visit(item, f"{path}/", depth + 1)
            elif isinstance(item, h5py.Dataset):
                self.datasets[path] = item

    def _texts(self, group: Any) -> dict[str, Any]:
        texts = {name: _text(group.attrs[name]) for name in group.attrs if _ATTRIBUTES.fullmatch(name)}
        texts = {name: value for name, value in texts.items() if isinstance(value, str | list)}
        for value in texts.values():
            for entry in value if isinstance(value, list) else [value]:
                self._count(len(entry) if isinstance(entry, str) else 1)
        return texts

    def _count(self, letters: int) -> None:
        self._letters += letters
        if self._letters > _MOST_LETTERS:
            raise ValueError(f"its names and its configuration take more than {_MOST_LETTERS:,} letters together")


def numbers(path: str, dataset: Any) -> Any:
    """The numbers of a data set, a NumPy array.

    Raises:
        ValueError: they lie in other files, in chunks far larger than themselves, or are compressed by something that
            HDF5 itself does not bring.
    """
    import numpy as np

    if dataset.external or dataset.is_virtual:
        raise ValueError(f"array {path[:200]!r} lies in other files, not opened; weight files hold their own")
    settings = dataset.id.get_create_plist()
    filters = {settings.get_filter(k)[0] for k in range(settings.get_nfilters())}
    if not filters <= set(FILTERS):
        raise ValueError(f"array {path[:200]!r} is compressed by filters {sorted(filters)}; {FILTERS} are read")
    size, chunk = (math.prod(shape) * dataset.dtype.itemsize for shape in (dataset.shape, dataset.chunks or (0,)))
    if chunk > max(size, _LARGEST_CHUNK):
        raise ValueError(f"array {path[:200]!r} takes {size:,} bytes, and lies in chunks of {chunk:,}")
    _limit_memory(_BASE + 2 * (size + chunk))
    made = np.empty(dataset.shape, dataset.dtype)
    if made.size:
        dataset.read_direct(made) if made.ndim else made.__setitem__((), dataset[()])
    return made


def _text(value: Any) -> Any:
    import numpy as np

    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | list | tuple):
        return [_text(entry) for entry in value]
    return value


def _limit_memory(most: int) -> None:
    """Where the system can: more than ``most`` bytes of address space are refused to this process."""
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(
            resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )  # fmt: skip
    except (ImportError, ValueError, OSError):
        return


def _say(output: Any, message: dict[str, Any]) -> None:
    output.write(json.dumps(message).encode() + b"\n")
    output.flush()


def _serve(requests: Any, output: Any) -> None:
    """Say what is in the file, then send the arrays that are asked for."""
    asked = json.loads(requests.readline())
    sys.path[:] = asked["sys_path"]
    import h5py
    import numpy as np

    _limit_memory(_BASE)
    file = asked["path"] if asked["length"] is None else Slice(asked["path"], asked["start"], asked["length"])
    with h5py.File(file, "r") as root:
        inventory = Inventory(root)
        _say(output, inventory.described())
        for path in json.loads(requests.readline() or b"[]"):
            made = np.ascontiguousarray(numbers(path, inventory.datasets[path]))
            _say(output, {"bytes": made.nbytes})
            output.write(made.tobytes() if made.nbytes < 1 << 16 else made.reshape(-1).view(np.uint8).data)
            output.flush()


def main() -> None:
    """Serve one file, or say what is wrong with it."""
    try:
        _serve(sys.stdin.buffer, sys.stdout.buffer)
    except ValueError as error:
        _say(sys.stdout.buffer, {"error": str(error)})
    except MemoryError:
        _say(sys.stdout.buffer, {"error": "it takes far more memory than its arrays need: it is damaged or hostile"})
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        message = f"it cannot be read as HDF5: it is cut short or damaged ({str(error)[:300]})"
        _say(sys.stdout.buffer, {"error": message})


if __name__ == "__main__":
    main()
