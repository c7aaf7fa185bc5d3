"""Safetensors: what its own library writes, headers that lie, shards, and the real files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bayestl.pretrained._read import read


def write(path: Path, header: object, content: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64", "complex64"),
        *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
    ],
)
def test_dtypes_and_values(tmp_path, dtype):
    values = {"a/kernel": np.array([[0, 1], [1, 0], [1, 1]], dtype), "b.bias": np.ones(3, dtype)}
    save_file(values, tmp_path / "x.safetensors", {"made": "here"})
    weights = read(tmp_path / "x.safetensors")
    assert (weights.format, weights.metadata) == ("safetensors", {"made": "here"})
    assert set(weights.arrays) == set(values)
    for name, wanted in values.items():
        assert repr(weights.arrays[name].dtype) == repr(wanted.dtype)
        np.testing.assert_array_equal(weights.arrays[name].view(np.uint8), wanted.view(np.uint8))


def test_nothing_is_copied(tmp_path):
    save_file({"x": np.zeros((64, 64), np.float32)}, tmp_path / "x.safetensors")
    array = read(tmp_path / "x.safetensors").arrays["x"]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_scalars_and_empty_arrays(tmp_path):
    save_file({"n": np.array(5), "none": np.zeros((0, 3), np.float32)}, tmp_path / "x.safetensors")
    arrays = read(tmp_path / "x.safetensors").arrays
    assert arrays["n"].shape == ()
    assert arrays["n"] == 5
    assert arrays["none"].shape == (0, 3)


def test_unaligned_numbers_are_copied_to_where_they_can_be_used(tmp_path):
    path = write(
        tmp_path / "x.safetensors",
        b'{"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}   ',
        np.float64(3).tobytes(),
    )
    array = read(path).arrays["w"]
    assert array.flags.aligned
    assert array == [3.0]


@pytest.mark.parametrize(
    ("header", "content", "message"),
    [
        ({"w": entry()}, bytes(7), "its arrays take 8 bytes, but 7 follow the header: it is cut short"),
        ({"w": entry()}, bytes(9), "its arrays take 8 bytes, but 9 follow"),
        ({"w": entry(offsets=(0, 4))}, bytes(4), r"gives 'w' 4 bytes, where F32 of shape \(2,\) takes 8"),
        ({"w": entry(shape=(2**40, 2**40))}, bytes(8), "gives 'w' 8 bytes, where F32 of shape"),
        ({"a": entry(), "b": entry()}, bytes(8), "'b' starts at byte 0, where the array before it ends at 8"),
        ({"a": entry(offsets=(8, 16))}, bytes(16), "'a' starts at byte 8, where the array before it ends at 0"),
        ({"w": entry(offsets=(-8, 0))}, bytes(8), "shape and offsets of 'w' in its header are not all integers >= 0"),
        ({"w": entry(shape=(2.0,))}, bytes(8), "are not all integers"),
        ({"w": entry(shape=(True, 2))}, bytes(8), "are not all integers"),
        ({"w": entry(shape=3)}, bytes(8), "does not say dtype, shape and data_offsets of 'w'"),
        ({"w": {"dtype": "F32"}}, bytes(8), "does not say dtype, shape and data_offsets of 'w'"),
        ({"w": entry("F4")}, bytes(8), r"'w' has dtype 'F4', which is not read; \['BOOL'"),
        ({"w": entry(["F32"])}, bytes(8), "which is not read"),
        ({"__metadata__": [1]}, b"", "__metadata__ of its header is not an object"),
        ({}, b"", "it holds no arrays"),
        (b'{"w":1,"w":2}', b"", "header is not valid JSON: a name comes twice"),
        (b'{"w"', b"", "header is not valid JSON"),
        (b'{"\xff"}', b"", "header is not valid JSON"),
        (b'{"w":' + b"[" * 100_000, b"", "header is not valid JSON"),
    ],
)
def test_headers_that_lie(tmp_path, header, content, message):
    path = write(tmp_path / "x.safetensors", header, content)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_every_truncation_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(3, np.float16)}, path)
    content = path.read_bytes()
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
            read(path)


# ---------------------------------------------------------------- shards


@pytest.fixture
def index(tmp_path) -> Path:
    save_file({"a": np.arange(3.0), "c": np.ones(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.arange(4.0)}, tmp_path / "model-2.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    where = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    path.write_text(json.dumps({"metadata": {"total_size": 64}, "weight_map": where}))
    return path


def test_shards(index):
    weights = read(index)
    assert list(weights.arrays) == ["a", "b", "c"]
    np.testing.assert_array_equal(weights.arrays["b"], np.arange(4.0))
    assert weights.metadata == {"total_size": 64, "files": ["model-1.safetensors", "model-2.safetensors"]}
    assert weights.source == str(index)


def test_shards_that_are_not_there_or_damaged(index):
    part = index.with_name("model-2.safetensors")
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"index.json: its part 'model-2.safetensors': .*cut short"):
        read(index)
    part.unlink()
    with pytest.raises(ValueError, match=r"lists the file 'model-2.safetensors', which is not beside it"):
        read(index)
    save_file({"other": np.zeros(1)}, part)
    with pytest.raises(ValueError, match=r"its files lack 1 of the 3 arrays it lists, such as \['b'\]"):
        read(index)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "..\\x", "..", ""])
def test_shards_elsewhere_are_refused(index, name):
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="not a plain name; parts lie beside their index"):
        read(index)


def test_an_index_may_not_list_an_index(index):
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))
    with pytest.raises(ValueError, match=r"its part .*index.json': it begins with"):
        read(index)


@pytest.mark.parametrize(
    "text", ["{", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": ["x"]}}', "{" * 9999]
)
def test_json_that_is_no_index(index, text):
    index.write_text(text)
    with pytest.raises(ValueError, match=r"index.json: it (begins like a JSON index|is JSON, but no index)"):
        read(index)


# ---------------------------------------------------------------- the real files


@pytest.mark.parametrize(
    ("name", "num_arrays", "size"),
    [
        ("mobilenet_1.0_224_imagenet_to_conv_pw_12", 125, 2_162_880),
        ("resnet20_cifar10", None, None),
        ("resnet56_cifar10", None, None),
    ],
)
def test_published_weights(data_dir, name, num_arrays, size):
    path = data_dir / f"{name}.safetensors"
    weights, wanted = read(path), load_file(path)
    assert num_arrays in (None, len(weights.arrays))
    assert size in (None, weights.size)
    assert set(weights.arrays) == set(wanted)
    for key, array in wanted.items():
        assert weights.arrays[key].dtype == array.dtype
        np.testing.assert_array_equal(weights.arrays[key], array)
