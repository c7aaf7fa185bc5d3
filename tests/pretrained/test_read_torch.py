"""PyTorch files without PyTorch: files written opcode by opcode, hostile pickles that must not run, torch's own."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path, PurePosixPath

import ml_dtypes
import numpy as np
import pytest

from bayestl.pretrained._read import read

# ---------------------------------------------------------------- a writer of state dicts, in opcodes


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str, key: str, count: int, tail: bytes = b"") -> bytes:
    return (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + tail + b"tQ"
    )


def tensor(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    arguments = (
        stored + number(offset) + numbers(*shape) + numbers(*strides) + b"\x89" + b"ccollections\nOrderedDict\n)R"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def mapping(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u"


def write_zip(path: Path, body: bytes, storages: dict[str, bytes], byteorder: bytes | None = b"little") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02" + body + b".")
        if byteorder is not None:
            archive.writestr("net/byteorder", byteorder)
        for key, content in storages.items():
            info = zipfile.ZipInfo(f"net/data/{key}")
            padding = -(archive.fp.tell() + 34 + len(info.filename)) % 64  # storages are aligned, as torch's are
            info.extra = b"FB" + struct.pack("<H", padding) + bytes(padding)
            archive.writestr(info, content)
        archive.writestr("net/version", b"3\n")
    return path


def write_legacy(path: Path, body: bytes, storages: dict[str, tuple[int, bytes]]) -> Path:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system))
    tail = b"".join(struct.pack("<q", count) + content for count, content in storages.values())
    path.write_bytes(head + b"\x80\x02" + body + b"." + pickle.dumps(list(storages), 2) + tail)
    return path


SIX = np.arange(6, dtype="<f4")


@pytest.fixture
def plain(tmp_path) -> Path:
    """A zip file with one 2 x 3 float tensor under the name ``w``."""
    body = mapping(w=tensor(storage("FloatStorage", "0", 6), 0, (2, 3), (3, 1)))
    return write_zip(tmp_path / "plain.pth", body, {"0": SIX.tobytes()})


# ---------------------------------------------------------------- what is read


def test_a_state_dict(plain):
    weights = read(plain)
    assert (weights.format, weights.source, weights.size) == ("torch", str(plain), 6)
    assert list(weights.arrays) == ["w"]
    assert weights.arrays["w"].dtype == np.float32
    np.testing.assert_array_equal(weights.arrays["w"], [[0, 1, 2], [3, 4, 5]])
    assert not weights.arrays["w"].flags.writeable


def test_views_share_one_storage(tmp_path):
    shared = storage("FloatStorage", "0", 6)
    body = mapping(
        transposed=tensor(shared, 0, (3, 2), (1, 3)),
        row=tensor(shared, 3, (3,), (1,)),
        corners=tensor(shared, 0, (2, 2), (3, 2)),
        repeated=tensor(shared, 4, (2, 3), (0, 0)),
        number=tensor(shared, 5, (), ()),
        empty=tensor(shared, 0, (0, 4), (4, 1)),
    )
    arrays = read(write_zip(tmp_path / "views.pth", body, {"0": SIX.tobytes()})).arrays
    whole = SIX.reshape(2, 3)
    np.testing.assert_array_equal(arrays["transposed"], whole.T)
    np.testing.assert_array_equal(arrays["row"], whole[1])
    np.testing.assert_array_equal(arrays["corners"], whole[:, ::2])
    np.testing.assert_array_equal(arrays["repeated"], np.full((2, 3), 4))
    assert arrays["number"].shape == ()
    assert arrays["number"] == 5
    assert arrays["empty"].shape == (0, 4)
    assert np.shares_memory(arrays["transposed"], arrays["row"])


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        ({}, [1 + 2j, -3j]),
        ({"conj": True}, [1 - 2j, 3j]),
        ({"neg": True}, [-1 - 2j, 3j]),
        ({"conj": True, "neg": True}, [-1 + 2j, -3j]),
    ],
)
def test_what_torch_puts_off_is_done(tmp_path, flags, values):
    # torch.conj and its kin share the storage and note the change, which torch.save writes as a last argument.
    noted = pickle.dumps(flags, 2)[2:-1]
    call = tensor(storage("ComplexFloatStorage", "0", 2), 0, (2,), (1,)).removesuffix(b"tR") + noted + b"tR"
    content = np.array([1 + 2j, -3j], "<c8").tobytes()
    np.testing.assert_array_equal(
        read(write_zip(tmp_path / "x.pth", mapping(w=call), {"0": content})).arrays["w"], values
    )


def test_what_torch_may_put_off_in_future_is_refused(tmp_path):
    noted = pickle.dumps({"scaled": True}, 2)[2:-1]
    call = tensor(storage("FloatStorage", "0", 6), 0, (6,), (1,)).removesuffix(b"tR") + noted + b"tR"
    with pytest.raises(ValueError, match=r"metadata {'scaled': True}, which may change its numbers and is not known"):
        read(write_zip(tmp_path / "x.pth", mapping(w=call), {"0": SIX.tobytes()}))


SCRIPT_OBJECTS = {
    "args": argparse.Namespace(lr=0.1, layers=[1, 2]),
    "best": np.float64(0.5),
    "folder": PurePosixPath("a/b"),
    "when": datetime.datetime(2020, 1, 2),
    "counts": collections.defaultdict(int, {"a": 1}),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("key", [None, "state_dict"])
def test_objects_beside_the_tensors_are_left_out(tmp_path, protocol, key):
    weights = tensor(storage("FloatStorage", "0", 6), 0, (6,), (1,))
    pickled = pickle.dumps(SCRIPT_OBJECTS, protocol)[:-1].removeprefix(
        b"\x80" + bytes([protocol]) if protocol > 1 else b""
    )
    found = read(
        write_zip(tmp_path / "x.pth", mapping(state_dict=mapping(w=weights), extra=pickled), {"0": SIX.tobytes()}),
        key=key,
    )
    np.testing.assert_array_equal(found.arrays["w"], SIX)
    assert set(found.metadata["skipped"]) == {"extra/args", "extra/best", "extra/folder", "extra/when"}
    assert found.metadata["skipped"]["extra/args"] in ("argparse.Namespace", "copy_reg._reconstructor")


def test_objects_of_any_kind_may_lie_beside_the_part_that_is_asked_for(tmp_path):
    marker = tmp_path / "marker"
    weights = tensor(storage("FloatStorage", "0", 6), 0, (6,), (1,))
    for name, code in attacks(marker).items():
        body = code[2:-1] if code[:1] == b"\x80" else code[:-1]
        path = write_zip(tmp_path / "x.pth", mapping(model=mapping(w=weights), bad=body), {"0": SIX.tobytes()})
        found = read(path, key="model")
        assert list(found.arrays) == ["w"], name
        assert found.metadata["skipped"]["bad"].endswith(("mkdir", "eval"))
        with pytest.raises(ValueError, match=r"at 'bad' its pickle names '.*', which may hold tensors"):
            read(path, key="")
        assert not marker.exists()


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", np.float64),
        ("HalfStorage", np.float16),
        ("BFloat16Storage", ml_dtypes.bfloat16),
        ("LongStorage", np.int64),
        ("IntStorage", np.int32),
        ("ShortStorage", np.int16),
        ("CharStorage", np.int8),
        ("ByteStorage", np.uint8),
        ("BoolStorage", np.bool_),
        ("ComplexFloatStorage", np.complex64),
    ],
)
@pytest.mark.parametrize("byteorder", [b"little", b"big", None])
def test_dtypes_and_byte_orders(tmp_path, kind, dtype, byteorder):
    values = np.array([0, 1, 1], dtype)
    stored = values.view(f"V{values.itemsize}")
    if byteorder == b"big":
        width = values.itemsize // 2 if values.dtype.kind == "c" else values.itemsize
        stored = np.frombuffer(values.tobytes(), f"u{width}").byteswap()
    body = mapping(v=tensor(storage(kind, "0", 3), 0, (3,), (1,)))
    array = read(write_zip(tmp_path / "x.pt", body, {"0": stored.tobytes()}, byteorder)).arrays["v"]
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    np.testing.assert_array_equal(array.astype(np.complex128), [0, 1, 1])


def test_a_checkpoint_gives_its_only_state_dict(tmp_path):
    weights = tensor(storage("FloatStorage", "0", 6), 0, (6,), (1,))
    body = mapping(epoch=number(7), state_dict=mapping(w=weights), best=b"G" + struct.pack(">d", 0.5), note=text("hi"))
    found = read(write_zip(tmp_path / "x.pth", body, {"0": SIX.tobytes()}))
    assert list(found.arrays) == ["w"]
    assert found.metadata == {"key": "state_dict", "other": {"epoch": 7, "best": 0.5, "note": "hi"}}


def test_a_checkpoint_with_several_asks_which(tmp_path):
    def weights(key):
        return tensor(storage("FloatStorage", key, 6), 0, (6,), (1,))

    body = mapping(model=mapping(w=weights("0")), optimizer=mapping(state=b"](" + weights("1") + b"e"))
    path = write_zip(tmp_path / "x.pth", body, {"0": SIX.tobytes(), "1": SIX.tobytes()[:4]})  # "1" is damaged
    with pytest.raises(ValueError, match=r"tensors in 'model' \(1\), 'optimizer' \(1\); choose one with key=.*'model'"):
        read(path)
    assert list(read(path, key="model").arrays) == ["w"]  # and does not look at the rest
    with pytest.raises(ValueError, match="storage '1' has 4 bytes, where 24 are announced"):
        read(path, key="")
    with pytest.raises(ValueError, match=r"no arrays below key='ema'; it has 'model' \(1\), 'optimizer' \(1\)"):
        read(path, key="ema")


def test_parameters_attributes_and_the_newer_opcodes(tmp_path):
    stored = storage("FloatStorage", "0", 6)
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor(stored, 0, (6,), (1,)) + b"\x88" + b"}" + b"tR"
    ordered = b"ccollections\nOrderedDict\n)R(" + text("w") + parameter + b"u" + b"}(" + text("_metadata") + b"}ub"
    path = write_zip(tmp_path / "x.pth", ordered, {"0": SIX.tobytes()})
    np.testing.assert_array_equal(read(path).arrays["w"], SIX)
    newer = (
        b"\x95" + bytes(8) + b"\x8c\x0ccollections\x8c\x0bOrderedDict".replace(b"\x0ccoll", b"\x0bcoll") + b"\x93)R\x94"
    )
    body = newer + b"(" + text("w") + parameter + b"u"
    np.testing.assert_array_equal(read(write_zip(tmp_path / "y.pth", body, {"0": SIX.tobytes()})).arrays["w"], SIX)


def test_the_old_format(tmp_path):
    half = np.array([1.5, 2.5], "<f2")
    view = b"(" + text("view") + number(2) + number(3) + b"t"  # elements 2, 3, 4 of the storage
    body = mapping(
        a=tensor(storage("FloatStorage", "17", 6, b"N"), 0, (2, 3), (3, 1)),
        b=tensor(storage("HalfStorage", "4", 2, b"N"), 0, (2,), (1,)),
        c=tensor(storage("FloatStorage", "17", 6, view), 1, (2,), (1,)),
    )
    path = write_legacy(tmp_path / "x.pth", body, {"4": (2, half.tobytes()), "17": (6, SIX.tobytes())})
    weights = read(path)
    assert weights.format == "torch-legacy"
    np.testing.assert_array_equal(weights.arrays["a"], SIX.reshape(2, 3))
    np.testing.assert_array_equal(weights.arrays["b"], half)
    np.testing.assert_array_equal(weights.arrays["c"], [3, 4])
    assert all(array.flags.aligned for array in weights.arrays.values())


def test_compressed_archives_are_bounded(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        body = mapping(w=tensor(storage("FloatStorage", "0", 50_000), 0, (50_000,), (1,)))
        archive.writestr("net/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("net/data/0", bytes(200_000))
    assert not read(tmp_path / "x.pth").arrays["w"].any()
    with pytest.raises(ValueError, match=r"take 200,000 bytes, the file .*max_bytes=100,000 allows"):
        read(tmp_path / "x.pth", max_bytes=100_000)


def test_views_cannot_expand_without_bound(tmp_path):
    body = mapping(w=tensor(storage("FloatStorage", "0", 6), 0, (2**30, 2**30), (0, 0)))
    with pytest.raises(ValueError, match=r"its arrays take 4,611,686,018,427,387,904 bytes.*larger max_bytes"):
        read(write_zip(tmp_path / "x.pth", body, {"0": SIX.tobytes()}))


# ---------------------------------------------------------------- hostile pickles


class Attack:
    """Unpickling this makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def attacks(marker: Path) -> dict[str, bytes]:
    """Pickles that make ``marker`` when they are unpickled, without their PROTO and STOP."""
    made = {f"protocol {k}": pickle.dumps(Attack(marker), k) for k in range(6)}
    path = str(marker).encode()
    made["INST"] = b"(S'" + path + b"'\ni" + os.mkdir.__module__.encode() + b"\nmkdir\n."
    made["OBJ"] = b"(c" + os.mkdir.__module__.encode() + b"\nmkdir\nS'" + path + b"'\no."
    made["eval"] = b'c__builtin__\neval\n(S\'__import__("os").mkdir(' + b'"' + path + b"\")'\ntR."
    return made


NAMES = [*(f"protocol {k}" for k in range(6)), "INST", "OBJ", "eval"]


@pytest.mark.parametrize("name", NAMES)
def test_the_attacks_are_real(tmp_path, name):
    marker = tmp_path / "marker"
    pickle.loads(attacks(marker)[name])
    assert marker.exists()


@pytest.mark.parametrize("where", ["bare file", "old format", "zip", "inside a state dict", "compressed zip"])
@pytest.mark.parametrize("name", NAMES)
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, where, name):
    marker, path = tmp_path / "marker", tmp_path / "hostile.pth"
    code = attacks(marker)[name]
    if where == "bare file":
        path.write_bytes(code)
    elif where == "old format":
        write_legacy(path, code[:-1].removeprefix(b"\x80\x02"), {})
    elif where == "inside a state dict":
        good = tensor(storage("FloatStorage", "0", 6), 0, (6,), (1,))
        body = code[2:-1] if code[:1] == b"\x80" else code[:-1]
        write_zip(path, mapping(w=good, bad=body), {"0": SIX.tobytes()})
    else:
        kind = zipfile.ZIP_DEFLATED if where == "compressed zip" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", kind) as archive:
            archive.writestr("net/data.pkl", code)
    with pytest.raises(ValueError, match=r"hostile.pth: its pickle names '\w+\.(mkdir|eval)'.*nothing was run"):
        read(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"ctorch.storage\n_load_from_bytes\n(U\x01xtR", "names 'torch.storage._load_from_bytes'"),
        (b"cnumpy.core.multiarray\n_reconstruct\n.", "names 'numpy.core.multiarray._reconstruct'"),
        (b"ctorch\nFloatStorage\n)R", "calls torch.FloatStorage, which is not something to call"),
        (b"K\x01)R", "calls a int, which is not something to call"),
        (b"\x82\x01", "uses EXT1, which a file of plain arrays does not need"),
        (b"Pabc\n", "uses PERSID"),
        (b"(" + text("module") + b"NNNNtQ", "refers to something that is no storage of numbers"),
        (mapping(w=b"](" + b"K\x01" * 3 + b"e"), "it holds no arrays"),
        (b"}((K\x01tK\x02u", "a key is a tuple; names are text"),
        (b"}K\x01a", "items for something that is not a list"),
        (b"0", "cut short or damaged"),
        (b"h\x05", "cut short or damaged"),
    ],
)
def test_pickles_that_are_no_state_dict(tmp_path, body, message):
    path = write_zip(tmp_path / "x.pth", body, {})
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_pickle_that_doubles_itself_ends(tmp_path):
    doubled = b"]" + b"".join(b"q\x00]h\x00ah\x00a" for _ in range(60))  # 2^60 lists, or one inside another
    with pytest.raises(ValueError, match=r"names take more than 67,108,864 letters|more than 1,000,000 parts"):
        read(write_zip(tmp_path / "x.pth", doubled, {}))
    with pytest.raises(ValueError, match="nested deeper than 100"):
        read(write_zip(tmp_path / "y.pth", b"]q\x00h\x00a", {}))  # a list that holds itself


def test_a_pickle_of_too_many_opcodes_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("bayestl.pretrained._pickle._MOST_OPCODES", 100)
    with pytest.raises(ValueError, match="its pickle has more than 100 opcodes; save the state dict alone"):
        read(write_zip(tmp_path / "x.pth", b"}0" * 60 + b"}", {}))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(0, (7,), (1,)), (6, (1,), (1,)), (0, (2, 3), (4, 1)), (0, (2,), (2**31 - 1,))]
)
def test_tensors_that_reach_beyond_their_storage(tmp_path, offset, shape, strides):
    body = mapping(w=tensor(storage("FloatStorage", "0", 6), offset, shape, strides))
    with pytest.raises(ValueError, match=r"tensor 'w' reaches to byte .* of a storage of 24: the file is damaged"):
        read(write_zip(tmp_path / "x.pth", body, {"0": SIX.tobytes()}))


def test_two_tensors_that_disagree_on_their_storage(tmp_path):
    body = mapping(
        a=tensor(storage("FloatStorage", "0", 6), 0, (6,), (1,)),
        b=tensor(storage("FloatStorage", "0", 600), 0, (600,), (1,)),
    )
    with pytest.raises(ValueError, match="tensor 'b' reaches to byte 2,400 of a storage of 24"):
        read(write_zip(tmp_path / "x.pth", body, {"0": SIX.tobytes()}))


@pytest.mark.parametrize(("offset", "shape", "strides"), [(-1, (1,), (1,)), (0, (-1,), (1,)), (5, (2,), (-1,))])
def test_negative_sizes(tmp_path, offset, shape, strides):
    body = mapping(w=tensor(storage("FloatStorage", "0", 6), offset, shape, strides))
    with pytest.raises(ValueError, match="sizes, strides and offsets are not all integers >= 0"):
        read(write_zip(tmp_path / "x.pth", body, {"0": SIX.tobytes()}))


def test_storages_stay_in_the_archive(tmp_path):
    (tmp_path / "secret").write_bytes(SIX.tobytes())
    body = mapping(w=tensor(storage("FloatStorage", "../../secret", 6), 0, (6,), (1,)))
    with pytest.raises(ValueError, match=r"its member 'net/data/../../secret' is missing"):
        read(write_zip(tmp_path / "x.pth", body, {}))


def test_torchscript_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}.")
        archive.writestr("net/constants.pkl", b"\x80\x02).")
    with pytest.raises(ValueError, match=r"a TorchScript program, not a state dict; save model.state_dict\(\)"):
        read(tmp_path / "x.pt")


# ---------------------------------------------------------------- damage


def test_every_truncation_is_named(tmp_path, plain):
    body = mapping(w=tensor(storage("FloatStorage", "0", 6, b"N"), 0, (2, 3), (3, 1)))
    old = write_legacy(tmp_path / "old.pth", body, {"0": (6, SIX.tobytes())})
    for path in (plain, old):
        content = path.read_bytes()
        assert read(path).size == 6
        for cut in range(len(content)):
            path.write_bytes(content[:cut])
            with pytest.raises(ValueError, match=f"{path.name}: "):
                read(path)


def test_a_flipped_bit_fails_the_checksum(plain):
    content = bytearray(plain.read_bytes())
    content[content.index(SIX.tobytes()) + 5] ^= 1
    plain.write_bytes(content)
    with pytest.raises(ValueError, match=r"member 'net/data/0' does not have the checksum.*the file is damaged"):
        read(plain)


def test_members_that_come_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}.")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("net/data.pkl", b"\x80\x02}.")
    with pytest.raises(ValueError, match=r"its member 'net/data.pkl' comes twice"):
        read(tmp_path / "x.pth")


# ---------------------------------------------------------------- torch itself


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    weight = torch.nn.Parameter(torch.randn(2, 3))
    weight.note = "an attribute"
    tensors = {
        **network.state_dict(),
        "transposed": torch.arange(6).reshape(2, 3).t(),
        "bfloat16": torch.randn(5).bfloat16(),
        "half": torch.randn(5).half(),
        "bool": torch.tensor([True, False]),
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
        "expanded": torch.ones(1).expand(3, 2),
        "slice": torch.randn(10, 10)[2:4, 1::3],
        "parameter": weight,
    }
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    weights = read(tmp_path / "x.pth")
    assert list(weights.arrays) == list(tensors)
    for name, tensor_ in tensors.items():
        array, wanted = weights.arrays[name], tensor_.detach()
        assert str(array.dtype) == str(wanted.dtype).removeprefix("torch.")
        comparable = wanted.float() if wanted.dtype == torch.bfloat16 else wanted
        np.testing.assert_array_equal(array.astype(comparable.numpy().dtype), comparable.numpy())


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"names 'torch.nn.modules.linear.Linear'.*save model.state_dict\(\) alone"):
        read(tmp_path / "x.pth")


def test_the_hand_written_files_are_torchs(plain):
    torch = pytest.importorskip("torch")
    state = torch.load(io.BytesIO(plain.read_bytes()), weights_only=True)
    np.testing.assert_array_equal(state["w"].numpy(), SIX.reshape(2, 3))
