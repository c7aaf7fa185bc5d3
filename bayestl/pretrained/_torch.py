"""PyTorch state dicts without torch: the zip format, and the format of torch before 1.6."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from bayestl.pretrained import _torch_pickle
from bayestl.pretrained._pickle import Opaque, interpret
from bayestl.pretrained._torch_pickle import Storage, Tensor
from bayestl.pretrained._weights import Ask, FileContents, flatten, mapped, num_bytes, parts, unique
from bayestl.pretrained._zip import Archive, View

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LARGEST_PICKLE = 1 << 26


def read_zip(archive: Archive, ask: Ask) -> FileContents:
    """The state dict in a file of torch 1.6 or newer."""
    pickles = [name for name in archive.members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"it has {len(pickles)} members data.pkl, where a state dict has one")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in archive.members:
        raise ValueError("it is a TorchScript program, not a state dict; save model.state_dict() with torch.save")
    most = max(ask.max_bytes, archive.num_bytes)
    order = (
        bytes(archive.text(f"{folder}byteorder", most, 16)) if f"{folder}byteorder" in archive.members else b"little"
    )
    file = View(archive.text(pickles[0], most, _LARGEST_PICKLE))
    tree = interpret(file, _torch_pickle.known_names(), _torch_pickle.storage, _skipped(ask))

    def content(storage: Storage) -> memoryview:
        storage_bytes = archive.member(f"{folder}data/{storage.key}", most)
        if len(storage_bytes) != storage.start + storage.num_bytes:
            raise ValueError(
                f"storage {storage.key[:40]!r} has {len(storage_bytes):,} bytes, where {storage.num_bytes:,} are "
                "announced: the file is damaged"
            )
        return storage_bytes

    def is_copy(storage: Storage) -> bool:
        return archive.is_packed(f"{folder}data/{storage.key}")

    return _found(tree, ask, archive.num_bytes, content, is_copy, order != b"big", "torch")


def read_legacy(path: Path, ask: Ask) -> FileContents:
    """The state dict in a file of torch before 1.6: pickles one after the other, then the storages."""
    data, known = mapped(path), _torch_pickle.known_names()
    file = View(data)
    if interpret(file, known, _torch_pickle.storage) != _MAGIC:
        raise ValueError("it is a pickle, but not one that torch.save wrote; save its arrays with np.savez")
    if interpret(file, known, _torch_pickle.storage) != _PROTOCOL:
        raise ValueError("it is in a format that torch.save never wrote")
    system = interpret(file, known, _torch_pickle.storage)
    little_endian = not isinstance(system, dict) or system.get("little_endian") is not False
    item_bytes: dict[str, int] = {}

    def stored(description: Any) -> Storage:
        storage = _torch_pickle.storage(description)
        item_bytes[storage.key] = storage.dtype.itemsize
        return storage

    tree = interpret(file, known, stored, _skipped(ask))
    keys = interpret(file, known, _torch_pickle.storage)
    contents = _legacy_contents(data, file.tell(), keys, item_bytes, "little" if little_endian else "big")
    return _found(
        tree,
        ask,
        len(data),
        lambda storage: contents[storage.key],
        lambda storage: False,
        little_endian,
        "torch-legacy",
    )


def _skipped(ask: Ask) -> Callable[[str], bool]:
    """Which objects may be there and are left out: where a part is named, whatever lies beside it."""
    return _torch_pickle.INERT.__contains__ if ask.key is None else lambda name: True


def _legacy_contents(
    data: memoryview, at: int, keys: Any, item_bytes: dict[str, int], order: Literal["little", "big"]
) -> dict[str, memoryview]:
    """Bytes of every storage; its length in elements comes first."""
    if not isinstance(keys, list) or set(item_bytes) != {key for key in keys if isinstance(key, str)}:
        raise ValueError("its list of storages does not fit its tensors: the file is damaged")
    contents = {}
    for key in keys:
        length = int.from_bytes(data[at : at + 8], order) * item_bytes[key]
        contents[key] = data[at + 8 : at + 8 + length]
        if len(contents[key]) != length:
            raise ValueError(
                f"storage {key[:40]!r} should have {length:,} bytes, {len(contents[key]):,} are left: the file is cut "
                "short or damaged"
            )
        at += 8 + length
    return contents


def _found(
    tree: Any,
    ask: Ask,
    file_bytes: int,
    content: Callable[[Storage], memoryview],
    is_copy: Callable[[Storage], bool],
    little_endian: bool,
    kind: str,
) -> FileContents:
    leaves = unique(flatten(tree))
    tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
    if ask.key is None:
        ask = Ask(_only_part(tensors), ask.max_bytes)
    sizes = {name: num_bytes(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    names = ask.choose(sizes, file_bytes)
    _check_skipped(leaves, ask.key)
    by_storage: dict[str, list[str]] = {}
    for name in names:
        by_storage.setdefault(tensors[name].storage.key, []).append(name)
    arrays: dict[str, Any] = dict.fromkeys(names.values())
    for sharing in by_storage.values():
        storage = tensors[sharing[0]].storage
        storage_bytes = content(storage)
        # An unpacked storage of which little is used is not kept in memory for that.
        copied = is_copy(storage) and 2 * sum(sizes[name] for name in sharing) < len(storage_bytes)
        for name in sharing:
            array = tensors[name].array(name, storage_bytes, little_endian)
            arrays[names[name]] = array.copy() if copied else array
    other = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, str | int | float | bool | None)}
    skipped = {name: leaf.name for name, leaf in leaves.items() if isinstance(leaf, Opaque)}
    metadata = {"key": ask.key, "other": other, **({"skipped": skipped} if skipped else {})}
    return FileContents(arrays, kind, metadata)


def _check_skipped(leaves: Mapping[str, Any], key: str | None) -> None:
    """Raise for an object of unknown kind among the tensors that are asked for, since it may be one of them."""
    prefix = f"{key}/" if key else ""
    for name, leaf in leaves.items():
        if isinstance(leaf, Opaque) and name.startswith(prefix) and leaf.name not in _torch_pickle.INERT:
            raise ValueError(
                f"at {name[:200]!r} its pickle names {leaf.name[:200]!r}, which may hold tensors and could run any "
                "code; nothing was run. Give key= a part without it, or save model.state_dict() alone"
            )


def _only_part(tensors: dict[str, Tensor]) -> str:
    """The part of a training checkpoint that holds tensors, or ``""`` where they lie at the top."""
    tops = {name.split("/", 1)[0] for name in tensors}
    if any("/" not in name for name in tensors) or not tops:
        return ""
    if len(tops) > 1:
        example = next(iter(tensors)).split("/", 1)[0][:80]
        raise ValueError(
            f"it is a checkpoint with tensors in {parts(tensors)}; choose one with key=, such as key={example!r}, or "
            "take all with key=''"
        )
    return tops.pop()
