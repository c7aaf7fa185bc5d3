"""NumPy's own files: everything it writes of numbers, and no objects."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile

import ml_dtypes
import numpy as np
import pytest

from bayestl.pretrained._read import read

ARRAYS = {
    "dense/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">f4"),
    "half": np.ones(5, np.float16),
    "flags": np.array([True, False]),
    "number": np.array(7),
    "empty": np.zeros((0, 2)),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    save(tmp_path / "x.npz", **ARRAYS)
    weights = read(tmp_path / "x.npz")
    assert (weights.format, list(weights.arrays)) == ("npz", list(ARRAYS))
    for name, wanted in ARRAYS.items():
        array = weights.arrays[name]
        assert array.dtype == wanted.dtype.newbyteorder("=")
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, wanted)
    assert list(read(tmp_path / "x.npz", key="dense").arrays) == ["kernel"]


def test_npy_is_named_after_its_file_and_not_copied(tmp_path):
    np.save(tmp_path / "embedding.npy", ARRAYS["dense/kernel"])
    weights = read(tmp_path / "embedding.npy")
    np.testing.assert_array_equal(weights.arrays["embedding"], ARRAYS["dense/kernel"])
    assert not weights.arrays["embedding"].flags.owndata


def test_bfloat16_which_numpy_stores_as_bytes(tmp_path):
    values = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    np.savez(tmp_path / "x.npz", w=values)
    array = read(tmp_path / "x.npz").arrays["w"]
    assert array.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(array, values)


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_objects_are_refused_and_not_run(tmp_path, suffix):
    path, marker = tmp_path / f"x.{suffix}", tmp_path / "marker"
    hostile = np.array([Attack(marker)], dtype=object)
    np.savez(path, w=hostile) if suffix == "npz" else np.save(path, hostile)
    with pytest.raises(ValueError, match=r"x.np.: array '\w' holds Python objects, .*nothing was run"):
        read(path)
    assert not marker.exists()
    np.load(path, allow_pickle=True)["w"] if suffix == "npz" else np.load(path, allow_pickle=True)
    assert marker.exists()  # so it was an attack


@pytest.mark.parametrize("value", [np.array(["text"]), np.array(["2020-01-01"], "M8[D]"), np.zeros(2, "f4,i4")])
def test_what_is_no_number_is_refused(tmp_path, value):
    np.savez(tmp_path / "x.npz", fine=np.ones(1), bad=value)
    with pytest.raises(ValueError, match=r"array 'bad' has dtype .*; weights are bool, int, float or complex"):
        read(tmp_path / "x.npz")


def npy(shape: str, content: bytes) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("(3,)", "has 8 bytes of numbers, where float32 of shape .* takes 12: the file is cut short or damaged"),
        ("(1,)", "has 8 bytes of numbers, where float32 of shape .* takes 4"),
        ("(1000000000000, 1000000)", "has 8 bytes of numbers"),
        ("(-2,)", "has a shape that is not all integers >= 0"),
        ("__import__('os')", "the header of array 'x' cannot be read"),
        ("(2,", "the header of array 'x' cannot be read"),
    ],
)
def test_headers_that_lie(tmp_path, shape, message):
    (tmp_path / "x.npy").write_bytes(npy(shape, bytes(8)))
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "x.npy", max_bytes=2**62)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", npy(shape, bytes(8)))
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "x.npz")


def test_an_npy_that_announces_too_much(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy("(1000000000000, 1000000)", bytes(8)))
    with pytest.raises(ValueError, match=r"its arrays take 4,000,000,000,000,000,000 bytes.*larger max_bytes"):
        read(tmp_path / "x.npy")


def test_zip_bombs(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", w=np.zeros(10**6))
    with pytest.raises(
        ValueError, match=r"its arrays take 8,000,128 bytes, the file [\d,]+: more than max_bytes=1,000,000"
    ):
        read(tmp_path / "x.npz", max_bytes=10**6)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24  # the size that the directory announces
    content[at : at + 4] = (500).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"'w.npy' unpacks to more than the announced 500 bytes"):
        read(tmp_path / "x.npz", max_bytes=10**6)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_every_truncation_is_named(tmp_path, save):
    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    save(path, np.arange(5.0))
    content = path.read_bytes()
    assert read(path).size == 5
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
            read(path)


def test_damage_in_compressed_members(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", w=np.random.default_rng(0).normal(size=100))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[200] ^= 255
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"member 'w.npy' (cannot be unpacked|does not have the checksum)"):
        read(tmp_path / "x.npz")


def test_encrypted_and_oddly_compressed_members(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.ones(2))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("w.npy", buffer.getvalue())
    with pytest.raises(ValueError, match=r"member 'w.npy' has compression 14, which is not read"):
        read(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", w=np.ones(2))
    content = bytearray((tmp_path / "y.npz").read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "y.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"member 'w.npy' is encrypted"):
        read(tmp_path / "y.npz")


def test_a_bare_pickle_is_refused(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"w": [1.0, 2.0]}, 2))
    with pytest.raises(ValueError, match=r"a pickle, but not one that torch.save wrote; save its arrays with np.savez"):
        read(tmp_path / "x.pkl")
