"""Keras files: the HDF5 of Keras 1 and 2, the ``.weights.h5`` of Keras 3, and ``.keras`` archives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bayestl.pretrained import _hdf5
from bayestl.pretrained._weights import Ask, FileContents, unique
from bayestl.pretrained._zip import Archive, View

WEIGHTS = "model.weights.h5"


def read_hdf5(path: Path, ask: Ask) -> FileContents:
    """The arrays of an HDF5 file, whichever Keras wrote it."""
    return _read(path, path.stat().st_size, ask)


def read_archive(archive: Archive, ask: Ask) -> FileContents:
    """The weights in a ``.keras`` archive; its configuration is kept as data, and no object is made of it."""
    most = max(ask.max_bytes, archive.num_bytes)
    metadata: dict[str, Any] = {}
    for name in ("metadata.json", "config.json"):
        if name in archive.members:
            metadata[name.removesuffix(".json")] = _json(name, bytes(archive.member(name, most)))
    weights = _read(View(archive.member(WEIGHTS, most)), archive.num_bytes, ask)
    return FileContents(weights.arrays, "keras", metadata | weights.metadata)


def _read(file: Any, file_bytes: int, ask: Ask) -> FileContents:
    with _hdf5.opened(file) as root:
        datasets, layers = _hdf5.datasets(root), _legacy_layers(root)
        if layers is not None:
            kind, stored = "keras-legacy-h5", _legacy_names(root, layers, datasets)
        elif any(path.startswith("vars/") or "/vars/" in path for path in datasets):
            kind, stored = "keras-h5", {path: path for path in datasets if not path.startswith("optimizer/")}
        else:
            kind, stored = "hdf5", {path: path for path in datasets}
        sizes = {name: _hdf5.size(name, datasets[path]) for name, path in stored.items()}
        names = ask.choose(sizes, file_bytes)
        arrays = {short: _hdf5.array(name, datasets[stored[name]]) for name, short in names.items()}
        metadata = {"left_out": sorted(set(datasets) - set(stored.values())), **_said(root)}
        if kind == "keras-h5":
            metadata["layers"] = _layer_names(root, stored)
    return FileContents(arrays, kind, metadata)


def _legacy_layers(root: Any) -> Any:
    """The group with one group for each layer, in a file of the older layout."""
    groups = [root, root["model_weights"]] if "model_weights" in root else [root]
    return next((group for group in groups if _hdf5.attribute(group, "layer_names") is not None), None)


def _legacy_names(root: Any, layers: Any, datasets: dict[str, Any]) -> dict[str, str]:
    """``layer/weight`` and its path in the file, in the order of the layers.

    Keras writes a weight's name in several ways: ``conv1/kernel:0``, ``model/conv1/kernel``, ``kernel:0``. Here it
    begins with the layer, and ends without the ``:0``.
    """
    folder = layers.name.strip("/")

    def names() -> Iterator[tuple[str, str]]:
        for layer in _hdf5.attribute(layers, "layer_names"):
            for weight in _hdf5.attribute(layers[layer], "weight_names") or []:
                path = "/".join(filter(None, [folder, layer, weight]))
                if path not in datasets:
                    raise ValueError(f"weight {weight[:200]!r} of layer {layer[:200]!r} is listed but not there")
                _, within, rest = f"/{weight}".partition(f"/{layer}/")
                short = rest if within else weight
                yield f"{layer}/{short.removesuffix(':0')}", path

    return unique(names())


def _layer_names(root: Any, stored: dict[str, str]) -> dict[str, str]:
    """Path of a layer in a file of Keras 3 to the name that the layer had in its model."""
    folders = dict.fromkeys(path.rsplit("/", 1)[0] for path in stored if "/" in path)
    names = {folder.removesuffix("vars").strip("/"): _hdf5.attribute(root[folder], "name") for folder in folders}
    return {folder: name for folder, name in names.items() if isinstance(name, str)}


def _said(root: Any) -> dict[str, Any]:
    said = {name: _hdf5.attribute(root, name) for name in ("keras_version", "backend", "model_config")}
    if isinstance(said["model_config"], str):
        said["model_config"] = _json("model_config", said["model_config"].encode())
    return {name: value for name, value in said.items() if value is not None}


def _json(name: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {name} is not valid JSON: {str(error)[:200]}") from error
