"""Keras' HDF5 and archives: both layouts, and HDF5 features that lead out of a file."""

from __future__ import annotations

import json
import re
import sys
import zipfile
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from bayestl.pretrained import _hdf5
from bayestl.pretrained._read import read

h5py = pytest.importorskip("h5py")

KERNEL, BIAS = np.arange(12, dtype=np.float32).reshape(4, 3), np.ones(3, np.float32)


def legacy(root, names: dict[str, list[str]], arrays: list[np.ndarray]) -> None:
    """The layout of Keras 1 and 2, in the group ``root``."""
    root.attrs["layer_names"] = np.array([name.encode() for name in names])
    root.attrs["keras_version"] = b"2.2.4"
    pending = list(arrays)
    for layer, weights in names.items():
        group = root.create_group(layer)
        group.attrs["weight_names"] = np.array([name.encode() for name in weights], "S64")
        for weight in weights:
            group[weight] = pending.pop(0)


@pytest.fixture
def weights_h5(tmp_path) -> Path:
    """The layout of Keras 3."""
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = KERNEL, BIAS
        file["layers/dense/vars"].attrs["name"] = "head"
        file["optimizer/vars/0"] = np.zeros(7)
    return path


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("conv1/kernel:0", "conv1/kernel"),
        ("kernel", "conv1/kernel"),
        ("sequential/conv1/kernel", "conv1/kernel"),
        ("inner/dense/kernel:0", "conv1/inner/dense/kernel"),
        ("model/conv1/inner/dense/kernel", "conv1/inner/dense/kernel"),
    ],
)
@pytest.mark.parametrize("whole_model", [False, True])
def test_the_older_layout(tmp_path, stored, given, whole_model):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        legacy(root, {"input": [], "conv1": [stored, "b:0"]}, [KERNEL, BIAS])
        if whole_model:
            file.attrs["model_config"] = json.dumps({"class_name": "Sequential"})
            file["optimizer_weights/adam/m:0"] = np.zeros(3)
    weights = read(tmp_path / "x.h5")
    assert weights.format == "keras-legacy-h5"
    assert list(weights.arrays) == [given, "conv1/b"]
    np.testing.assert_array_equal(weights.arrays[given], KERNEL)
    assert weights.arrays[given].dtype == np.float32
    if whole_model:
        assert weights.metadata["model_config"] == {"class_name": "Sequential"}
        assert weights.metadata["left_out"] == ["optimizer_weights/adam/m:0"]
    else:
        assert weights.metadata["keras_version"] == "2.2.4"


def test_long_lists_of_names_come_in_pieces(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        legacy(file, {"a": ["k:0"], "b": ["k:0"]}, [KERNEL, BIAS])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"a"], [b"b"]
    assert list(read(tmp_path / "x.h5").arrays) == ["a/k", "b/k"]


def test_names_that_are_listed_but_not_there(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        legacy(file, {"a": ["k:0"]}, [KERNEL])
        del file["a/k:0"]
    with pytest.raises(ValueError, match=r"x.h5: weight 'k:0' of layer 'a' is listed but not there"):
        read(tmp_path / "x.h5")


def test_the_newer_layout(weights_h5):
    weights = read(weights_h5)
    assert (weights.format, list(weights.arrays)) == ("keras-h5", ["layers/dense/vars/0", "layers/dense/vars/1"])
    np.testing.assert_array_equal(weights.arrays["layers/dense/vars/0"], KERNEL)
    assert weights.metadata == {"left_out": ["optimizer/vars/0"], "layers": {"layers/dense": "head"}}
    assert list(read(weights_h5, key="layers/dense").arrays) == ["vars/0", "vars/1"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_keep_their_configuration_as_data(tmp_path, weights_h5, compression):
    config = {"module": "builtins", "class_name": "exec", "config": {"code": "1/0"}}
    with zipfile.ZipFile(tmp_path / "x.keras", "w", compression) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.0"}')
        archive.writestr("config.json", json.dumps(config))
        archive.write(weights_h5, "model.weights.h5")
    weights = read(tmp_path / "x.keras")
    assert weights.format == "keras"
    assert weights.metadata["config"] == config
    assert weights.metadata["metadata"] == {"keras_version": "3.0"}
    np.testing.assert_array_equal(weights.arrays["layers/dense/vars/1"], BIAS)


def test_other_hdf5_and_dtypes(tmp_path):
    arrays = {
        "big_endian": np.arange(3, dtype=">f8"),
        "bfloat16": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "flag": np.array([True, False]),
        "folder/number": np.array(3, np.int16),
        "empty": np.zeros((0, 2), np.float32),
    }
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array.view("V2") if array.dtype == ml_dtypes.bfloat16 else array
        file.create_dataset("squeezed", data=KERNEL, compression="gzip", shuffle=True, fletcher32=True)
    weights = read(tmp_path / "x.h5")
    assert weights.format == "hdf5"
    for name, array in arrays.items():
        assert weights.arrays[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(weights.arrays[name], array)
    np.testing.assert_array_equal(weights.arrays["squeezed"], KERNEL)


# ---------------------------------------------------------------- hostile files


@pytest.mark.parametrize("link", ["external", "soft"])
def test_links_are_not_followed(tmp_path, link):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["w"] = KERNEL
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["here"] = BIAS
        file["w"] = h5py.ExternalLink("secret.h5", "/w") if link == "external" else h5py.SoftLink("/here")
    kind = "ExternalLink" if link == "external" else "SoftLink"
    with pytest.raises(ValueError, match=rf"x.h5: 'w' is a link \({kind}\), .* it was not followed"):
        read(tmp_path / "x.h5")


@pytest.mark.parametrize("kind", ["external", "virtual"])
def test_numbers_in_other_files_are_not_read(tmp_path, kind):
    (tmp_path / "secret").write_bytes(bytes(16))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        if kind == "external":
            file.create_dataset("w", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)])
        else:
            layout = h5py.VirtualLayout((4,), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret"), "w", (4,))
            file.create_virtual_dataset("w", layout)
    with pytest.raises(ValueError, match="array 'w' lies in other files, not opened"):
        read(tmp_path / "x.h5")


def test_groups_that_hold_each_other(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b/w"] = BIAS
        file["a/b/again"] = file["a"]
    with pytest.raises(ValueError, match="group 'a/b/again/' is reached in two ways"):
        read(tmp_path / "x.h5")


def test_arrays_that_were_never_written(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("w", (10**7, 10**7), "f4", chunks=(1000, 1000))
    with pytest.raises(ValueError, match=r"its arrays take 400,000,000,000,000 bytes, the file [\d,]+: more than"):
        read(tmp_path / "x.h5")


def test_what_is_no_number_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"] = "text"
    with pytest.raises(ValueError, match="array 'w' has dtype object; weights are bool, int, float or complex"):
        read(tmp_path / "x.h5")


def test_truncations_are_named(tmp_path, weights_h5):
    archive = tmp_path / "x.keras"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("config.json", "{}")
        opened.write(weights_h5, "model.weights.h5")
    for path in (weights_h5, archive):
        content = path.read_bytes()
        for cut in (0, 7, 12, *range(16, len(content), 2399), len(content) - 1):  # each starts a process
            path.write_bytes(content[:cut])
            with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
                read(path)


def test_a_file_that_hangs_is_given_up(tmp_path, weights_h5, monkeypatch):
    hangs = tmp_path / "hangs.py"
    hangs.write_text("import time\nwhile True: time.sleep(1)\n")
    monkeypatch.setattr(_hdf5, "_WORKER", hangs)
    monkeypatch.setattr(_hdf5, "_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"x.weights.h5: HDF5 takes too long to read it, so it was given up"):
        read(weights_h5)


def test_a_crash_ends_another_process(tmp_path, weights_h5, monkeypatch):
    crashes = tmp_path / "crashes.py"
    crashes.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(_hdf5, "_WORKER", crashes)
    with pytest.raises(ValueError, match=r"x.weights.h5: it cannot be read as HDF5: .*the process .* ended with -11"):
        read(weights_h5)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited where the system can")
def test_a_chunk_that_unpacks_without_end(tmp_path):
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1800)) + packer.flush()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("w", (1000,), "f4", chunks=(1000,), compression="gzip")
        dataset.id.write_direct_chunk((0,), packed)
    assert (tmp_path / "x.h5").stat().st_size < 10_000_000
    with pytest.raises(ValueError, match=r"x.h5: it (cannot be read as HDF5|takes far more memory)"):
        read(tmp_path / "x.h5")


def test_archives_with_a_damaged_part(tmp_path, weights_h5):
    content = weights_h5.read_bytes()
    for name, part, message in [
        ("model.weights.h5", content[:-9], "cannot be read as HDF5: it is cut short or damaged"),
        ("config.json", b"{", "its config.json is not valid JSON"),
    ]:
        with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
            for member, whole in [("model.weights.h5", content), ("config.json", b"{}")]:
                archive.writestr(member, part if member == name else whole)
        with pytest.raises(ValueError, match=f"x.keras: .*{message}"):
            read(tmp_path / "x.keras")


def test_h5py_missing(weights_h5, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"reading HDF5 files needs h5py: pip install"):
        read(weights_h5)


# ---------------------------------------------------------------- Keras itself


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
@pytest.mark.filterwarnings("ignore")
def test_what_keras_writes(tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="last")], name="inner")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="first"), inner], name="net")
    path = tmp_path / f"x{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    weights = read(path)
    if suffix == ".h5":
        assert list(weights.arrays) == ["first/kernel", "first/bias", "inner/last/kernel", "inner/last/bias"]
        stored = list(weights.arrays.values())
    else:
        names = {name: path for path, name in weights.metadata["layers"].items()}
        stored = [weights.arrays[f"{names[layer]}/vars/{k}"] for layer in ("first", "last") for k in (0, 1)]
    for array, wanted in zip(stored, model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, wanted)
