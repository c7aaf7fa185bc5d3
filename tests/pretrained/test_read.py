"""Which reader a file gets, which part of it is given, and what is said of files that are none."""

from __future__ import annotations

import re

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from bayestl.pretrained._read import read
from bayestl.pretrained._weights import flatten

ARRAYS = {"body/kernel": np.ones((2, 3), np.float32), "body/bias": np.zeros(3), "head/kernel": np.ones(4)}


@pytest.fixture
def path(tmp_path):
    save_file(ARRAYS, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def test_weights_describe_themselves(path):
    weights = read(path)
    assert repr(weights) == f"Weights(3 arrays, 13 numbers, safetensors, {str(path)!r})"
    assert weights.size == 13
    assert read(str(path)).arrays.keys() == weights.arrays.keys() == ARRAYS.keys()
    with pytest.raises(AttributeError):
        weights.format = "other"


def test_key(path):
    assert read(path, key="body").arrays.keys() == {"kernel", "bias"}
    assert read(path, key="").arrays.keys() == ARRAYS.keys()
    with pytest.raises(
        ValueError, match=r"x.safetensors: it has no arrays below key='tail'; it has 'body' \(2\), 'head'"
    ):
        read(path, key="tail")
    with pytest.raises(ValueError, match="no arrays below key='bod'"):
        read(path, key="bod")


@pytest.mark.parametrize("name", ["x.bin", "x.h5", "noend", "x.npz"])
def test_the_content_decides_and_not_the_name(tmp_path, name):
    (tmp_path / name).write_bytes(save({"w": np.ones(3)}))
    assert read(tmp_path / name).format == "safetensors"


def test_filename_within_a_folder(path):
    assert read(path.parent, filename="x.safetensors").arrays.keys() == ARRAYS.keys()
    for filename in ("../x.safetensors", "/x.safetensors", "a/../../x"):
        with pytest.raises(ValueError, match=re.escape(f"filename {filename!r} leads out of")):
            read(path.parent, filename=filename)


@pytest.mark.parametrize(
    "source", ["nowhere.safetensors", "no/such/folder/x.npz", "folder/x.pth", "/a/b", "gpt2", "a/b/c"]
)
def test_missing_files(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=f"there is no file or folder {source}, nor is it an id organisation/name"
    ):
        read(source)


def test_revision_of_a_local_file(path):
    with pytest.raises(ValueError, match=r"revision='main' is for ids of a hub, and .*x.safetensors is a local path"):
        read(path, revision="main")


@pytest.mark.parametrize("max_bytes", [0, -1, 1.5, True, None])
def test_max_bytes(path, max_bytes):
    with pytest.raises(ValueError, match=f"max_bytes is {max_bytes}; give a positive number of bytes"):
        read(path, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer, .*git lfs pull"),
        (
            b"<!DOCTYPE html>",
            r"it begins with b'<!DOCTYP', which is not a known kind of weight file: safetensors, torch",
        ),
        (b"\x89PNG\r\n\x1a\n", "not a known kind of weight file"),
        (b"\x00" * 40, "not a known kind of weight file"),
        (b"PK\x03\x04" + bytes(40), "a zip archive that is cut short or damaged"),
        (b"PK\x05\x06" + bytes(18), "not a known kind of weight file"),
        (b"x", "not a known kind of weight file"),
    ],
)
def test_what_is_no_weight_file(tmp_path, content, message):
    (tmp_path / "thing").write_bytes(content)
    with pytest.raises(ValueError, match=f"thing: .*{message}|thing: {message}"):
        read(tmp_path / "thing")


def test_zip_archives_of_something_else(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("photo.jpg", b"")
    with pytest.raises(ValueError, match=r"neither of torch, Keras nor NumPy: it holds \['photo.jpg'\]"):
        read(tmp_path / "x.zip")


@pytest.mark.parametrize("tree", [{"a": {("b",): 1}}, {"a": {True: 1}}, {1.5: 2}])
def test_keys_that_are_no_names(tree):
    with pytest.raises(ValueError, match="names are text or integers"):
        list(flatten(tree))


def test_names_that_collide(tmp_path):
    from flax import serialization

    tree = {"a": {"b": np.ones(1)}, "a/b": np.ones(1)}
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    with pytest.raises(ValueError, match=r"x.msgpack: the name 'a/b' comes twice"):
        read(tmp_path / "x.msgpack")
