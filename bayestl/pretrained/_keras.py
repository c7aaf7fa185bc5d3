"""Keras files: the HDF5 of Keras 1 and 2, the ``.weights.h5`` of Keras 3, and ``.keras`` archives."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bayestl._limits import MOST_JSON, check_regular
from bayestl.pretrained import _hdf5
from bayestl.pretrained._weights import Ask, FileContents, unique
from bayestl.pretrained._zip import Archive

WEIGHTS = "model.weights.h5"
_MOST_LETTERS = 1 << 26


def read_hdf5(path: Path, ask: Ask) -> FileContents:
    """The arrays of an HDF5 file, whichever Keras wrote it."""
    check_regular(path)
    with _hdf5.opened(path) as file:
        return _read(file, path.stat().st_size, ask)


def read_archive(archive: Archive, ask: Ask) -> FileContents:
    """The weights in a ``.keras`` archive; its configuration is kept as data, and no object is made of it."""
    most = max(ask.max_bytes, archive.num_bytes)
    metadata: dict[str, Any] = {}
    for name in ("metadata.json", "config.json"):
        if name in archive.members:
            metadata[name.removesuffix(".json")] = _json(name, bytes(archive.text(name, most, MOST_JSON)))
    content = archive.member(WEIGHTS, most)
    with contextlib.ExitStack() as stack:
        if archive.is_packed(WEIGHTS):
            unpacked = Path(stack.enter_context(tempfile.TemporaryDirectory())) / WEIGHTS
            unpacked.write_bytes(content)
            file = stack.enter_context(_hdf5.opened(unpacked))
        else:
            file = stack.enter_context(_hdf5.opened(archive.path, archive.start(WEIGHTS), len(content)))
        weights = _read(file, archive.num_bytes, ask)
    return FileContents(weights.arrays, "keras", metadata | weights.metadata)


def _read(file: _hdf5.Contents, file_bytes: int, ask: Ask) -> FileContents:
    datasets, layers = file.datasets, _legacy_layers(file)
    if layers is not None:
        kind, stored = "keras-legacy-h5", _legacy_names(file, layers)
    elif any(path.startswith("vars/") or "/vars/" in path for path in datasets):
        kind, stored = "keras-h5", {path: path for path in datasets if not path.startswith("optimizer/")}
    else:
        kind, stored = "hdf5", {path: path for path in datasets}
    names = ask.choose({name: datasets[path].size(name) for name, path in stored.items()}, file_bytes)
    arrays = dict(zip(names.values(), file.arrays([stored[name] for name in names]), strict=True))
    metadata = {"left_out": sorted(set(datasets) - set(stored.values())), **_said(file)}
    if kind == "keras-h5":
        metadata["layers"] = _layer_names(file, stored)
    return FileContents(arrays, kind, metadata)


def _legacy_layers(file: _hdf5.Contents) -> str | None:
    """The path of the group with one group for each layer, in a file of the older layout."""
    groups = [group for group in ("", "model_weights") if group in file.attributes]
    return next((group for group in groups if file.attribute(group, "layer_names") is not None), None)


def _legacy_names(file: _hdf5.Contents, layers: str) -> dict[str, str]:
    """``layer/weight`` and its path in the file, in the order of the layers.

    Keras writes a weight's name in several ways: ``conv1/kernel:0``, ``model/conv1/kernel``, ``kernel:0``. Here it
    begins with the layer, and ends without the ``:0``.
    """

    def names() -> Iterator[tuple[str, str]]:
        letters = 0
        for layer in file.attribute(layers, "layer_names"):
            group = "/".join(filter(None, [layers, layer]))
            if group not in file.attributes:
                raise ValueError(f"layer {layer[:200]!r} is listed but not there")
            for weight in file.attribute(group, "weight_names") or []:
                letters += len(group) + len(weight)
                if letters > _MOST_LETTERS:
                    raise ValueError(f"its names take more than {_MOST_LETTERS:,} letters together")
                path = f"{group}/{weight}"
                if path not in file.datasets:
                    raise ValueError(f"weight {weight[:200]!r} of layer {layer[:200]!r} is listed but not there")
                _, within, rest = f"/{weight}".partition(f"/{layer}/")
                short = rest if within else weight
                yield f"{layer}/{short.removesuffix(':0')}", path

    return unique(names())


def _layer_names(file: _hdf5.Contents, stored: dict[str, str]) -> dict[str, str]:
    """Path of a layer in a file of Keras 3 to the name that the layer had in its model."""
    folders = dict.fromkeys(path.rsplit("/", 1)[0] for path in stored if "/" in path)
    names = {folder.removesuffix("vars").strip("/"): file.attribute(folder, "name") for folder in folders}
    return {folder: name for folder, name in names.items() if isinstance(name, str)}


def _said(file: _hdf5.Contents) -> dict[str, Any]:
    said = {name: file.attribute("", name) for name in ("keras_version", "backend", "model_config")}
    if isinstance(said["model_config"], str):
        said["model_config"] = _json("model_config", said["model_config"].encode())
    return {name: value for name, value in said.items() if value is not None}


def _json(name: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {name} is not valid JSON: {str(error)[:200]}") from error
