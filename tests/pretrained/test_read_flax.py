"""Flax's msgpack files: what Flax writes, and files made to break a reader."""

from __future__ import annotations

import re

import msgpack
import numpy as np
import pytest
from flax import serialization
from trees import TREE, check

from bayestl.pretrained._read import read


@pytest.fixture
def packed(tmp_path):
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(TREE))
    return tmp_path / "x.msgpack"


def test_msgpack(packed):
    weights = read(packed)
    assert (weights.format, weights.metadata) == ("flax-msgpack", {"other": {"step": 7}})
    check(weights.arrays)
    assert sorted(read(packed, key="params/Dense_0").arrays) == ["bias", "kernel"]


def test_arrays_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 64)
    wanted = np.arange(50.0).reshape(5, 10)
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize({"w": wanted}))
    np.testing.assert_array_equal(read(tmp_path / "x.msgpack").arrays["w"], wanted)


def extension(shape, dtype: bytes, content: bytes) -> bytes:
    return msgpack.packb({"w": msgpack.ExtType(1, msgpack.packb((shape, dtype, content)))})


def nested(depth: int) -> bytes:
    return b"\x81\xa1a" * depth + b"\x01"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (extension((1,), b"O", bytes(8)), "no msgpack file of Flax .*an array has dtype object"),
        (extension((2**40,), b"float32", bytes(8)), "no msgpack file of Flax .*reshape"),
        (extension((2,), b"nonsense", bytes(8)), "no msgpack file of Flax"),
        (extension((2,), b"__import__('os')", bytes(8)), "no msgpack file of Flax"),
        (extension((8,), b"S1", bytes(8)), r"array 'w' has dtype \|S1; weights are"),
        (extension((1,), b"f4,f4", bytes(8)), "array 'w' has dtype .*; weights are"),
        (msgpack.packb({"w": [1.0, 2.0]}), "it holds no arrays"),
        (msgpack.packb({"w": msgpack.ExtType(99, b"x")}), "it holds no arrays"),
        (b"\xdf\xff\xff\xff\xff", "cut short or no msgpack"),
        (nested(150), "nested deeper than 100"),
        (nested(200_000), "x.msgpack: "),
        (extension((1,), b"float64", bytes(8)) + b"\x01", "cut short or no msgpack file of Flax"),
    ],
)
def test_hostile_msgpack(tmp_path, content, message):
    (tmp_path / "x.msgpack").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "x.msgpack")


def test_msgpack_that_is_no_tree(tmp_path):
    (tmp_path / "x.msgpack").write_bytes(msgpack.packb([1, 2]))
    with pytest.raises(ValueError, match="it holds one list, not a tree of arrays"):
        read(tmp_path / "x.msgpack")


def test_every_truncation_is_named(packed):
    content = packed.read_bytes()
    for cut in range(len(content)):
        packed.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=re.escape(f"{packed}: ")):
            read(packed)
