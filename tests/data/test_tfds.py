"""Prepared data sets read without TensorFlow: array_record, TFRecord by its framing, and what is said without one."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

import jax
import numpy as np
import pytest

from bayestl import data

tfds = pytest.importorskip("tensorflow_datasets")

NUM = 11


def picture(row: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (4, 5, channels), np.uint8)


class Squares(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures, labels and numbers, as a user prepares them."""

    VERSION = tfds.core.Version("1.0.0")
    CHANNELS = 3

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
            "numbers": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples(range(3))}

    def _generate_examples(self, rows=range(NUM)):
        from PIL import Image

        for row in rows:
            image = Image.fromarray(picture(row, self.CHANNELS))
            yield row, {"image": image, "label": row % 2, "numbers": np.float32([row, row / 3])}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    Squares(data_dir=root, file_format="array_record").download_and_prepare()
    return root


def _masked_checksum(data: bytes) -> int:
    """CRC-32C bit by bit, from its definition, and the mask of the TFRecord format."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    state ^= 0xFFFFFFFF
    return ((state >> 15 | state << 17) + 0xA282EAD8) % 2**32


def _framed(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    checksums = (struct.pack("<I", _masked_checksum(x)) for x in (length, payload))
    return length + next(checksums) + payload + next(checksums)


@pytest.fixture(scope="module")
def as_tfrecord(prepared, tmp_path_factory) -> Path:
    """The same data set as TFRecord files of 4, 4 and 3 records, in the framing that TensorFlow writes."""
    raw = tfds.builder("squares", data_dir=prepared).as_data_source(
        "train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    folder = tmp_path_factory.mktemp("tfrecord") / "squares" / "1.0.0"
    folder.mkdir(parents=True)
    for shard, rows in enumerate([range(4), range(4, 8), range(8, 11)]):
        framed = [_framed(bytes(raw[row])) for row in rows]
        (folder / f"squares-train.tfrecord-{shard:05d}-of-00003").write_bytes(b"".join(framed))
    source = prepared / "squares" / "1.0.0"
    for path in source.iterdir():
        if path.suffix in (".json", ".txt"):
            (folder / path.name).write_text(path.read_text())
    info = json.loads((source / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    info["splits"] = [split | {"shardLengths": ["4", "4", "3"]} for split in info["splits"] if split["name"] == "train"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder.parent.parent


def example(record: dict) -> tuple:
    return {"image": record["image"], "numbers": record["numbers"]}, record["label"]


def assert_rows(source, rows):
    assert len(source) == len(rows)
    for record, row in zip((source[i] for i in range(len(source))), rows, strict=True):
        assert record["label"] == row % 2
        np.testing.assert_array_equal(record["image"], picture(row))
        np.testing.assert_array_equal(record["numbers"], np.float32([row, row / 3]))


SLICES = [
    ("train", range(11)),
    ("train[2:9]", range(2, 9)),
    ("train[5:6]", range(5, 6)),
    ("train[8:]", range(8, 11)),
    ("train[:3]+train[7:9]", [0, 1, 2, 7, 8]),
]


@pytest.mark.parametrize(("split", "rows"), SLICES)
def test_array_record(prepared, split, rows):
    assert_rows(data.tfds("squares", split, data_dir=prepared), rows)


@pytest.mark.parametrize(("split", "rows"), SLICES)
def test_tfrecord(as_tfrecord, split, rows):
    assert_rows(data.tfds("squares", split, data_dir=as_tfrecord), rows)


@pytest.mark.parametrize("where", ["prepared", "as_tfrecord"])
def test_streams_and_loaded_data_give_the_same_batches(where, request):
    source = data.tfds("squares", "train", data_dir=request.getfixturevalue(where))
    streamed, loaded = data.stream(source, example), data.load(source, example)
    assert loaded.inputs["image"].dtype == np.uint8
    np.testing.assert_array_equal(loaded.inputs["image"], [picture(row) for row in range(NUM)])
    key = jax.random.key(0)
    with streamed.open(key, 4, 5) as window:
        here = window(5)
    for i in range(5):
        wanted = loaded.batch(key, 5 + i, 4)
        np.testing.assert_array_equal(here.inputs["image"][i], wanted.inputs["image"])
        np.testing.assert_array_equal(here.targets[i], wanted.targets)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["prepared", "as_tfrecord"])
def test_worker_processes_read_them(where, request):
    source = data.tfds("squares", "train", data_dir=request.getfixturevalue(where))
    streamed = data.stream(source, lambda record: (record["numbers"], record["label"]), num_workers=1, num_threads=1)
    with streamed.open(jax.random.key(0), 4, 2) as window:
        here = window(0)
    np.testing.assert_array_equal(here.targets[1], streamed.batch(jax.random.key(0), 1, 4).targets)


def test_load_takes_any_source_in_any_number_of_chunks():
    loaded = data.load(range(150), lambda row: (np.full(2, row), row), num_threads=3)
    np.testing.assert_array_equal(loaded.targets, np.arange(150))
    np.testing.assert_array_equal(loaded.inputs[:, 1], np.arange(150))


def test_columns_and_chosen_rows(prepared):
    source = data.tfds("squares", "train", data_dir=prepared)
    labels = source.column("label")
    np.testing.assert_array_equal(labels, np.arange(NUM) % 2)
    rows = data.few_shot(labels, 2, seed=0)
    chosen = source.take(rows)
    assert_rows(chosen, rows)
    assert_rows(chosen.take([3, 0]), rows[[3, 0]])
    np.testing.assert_array_equal(chosen.column("numbers")[:, 0], rows)
    assert source.features["label"].names == ["even", "odd"]


def test_decoders_are_tfds_own(prepared):
    decoders = {"image": tfds.decode.SkipDecoding()}
    record = data.tfds("squares", "test", data_dir=prepared, decoders=decoders)[0]
    assert record["image"].startswith(b"\x89PNG")


def test_a_set_of_ones_own_is_prepared_on_request(tmp_path):
    class Registered(Squares):
        """TFDS knows a builder's class by its name once it is defined."""

    with pytest.raises(FileNotFoundError, match=r"registered/1\.0\.0 is not prepared in .* download=True to fetch and"):
        data.tfds("registered", "train", data_dir=tmp_path)
    assert_rows(data.tfds("registered", "test", data_dir=tmp_path, download=True), range(3))
    assert_rows(data.tfds("registered", "test", data_dir=tmp_path, download=True), range(3))


# ---------------------------------------------------------------- refusals


def test_sets_that_are_not_prepared_are_refused_without_the_network(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    words = (
        r"cifar10/3\.0\.2 is not prepared in .*copy a folder prepared elsewhere to .*cifar10/3\.0\.2, or give "
        r"download=True.*made from: cifar-10-binary\.tar\.gz \(162\.17 MiB\) from https://www\.cs\.toronto\.edu/.* "
        r"names unchanged, into .*downloads/manual first"
    )
    with pytest.raises(FileNotFoundError, match=words):
        data.tfds("cifar10", "train", data_dir=tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"preparing cifar10/3\.0\.2 from the catalogue needs TensorFlow once"):
        data.tfds("cifar10", "train", data_dir=tmp_path, download=True)
    with pytest.raises(ValueError, match="there is no data set 'cifar11', neither in the TFDS catalogue nor"):
        data.tfds("cifar11", "train", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["prepared", "as_tfrecord"])
@pytest.mark.parametrize("split", ["valid", "train[:1", "valid[:5]"])
def test_unknown_splits(where, split, request):
    with pytest.raises(ValueError, match=r"split .* of squares/1\.0\.0 cannot be read: there are .*train"):
        data.tfds("squares", split, data_dir=request.getfixturevalue(where))


def test_cut_files(as_tfrecord, tmp_path):
    import shutil

    shutil.copytree(as_tfrecord / "squares", tmp_path / "squares")
    shard = tmp_path / "squares" / "1.0.0" / "squares-train.tfrecord-00001-of-00003"
    whole = shard.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2 + 1, 5):
        shard.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"tfrecord-00001-of-00003 ends within record .*copy it again"):
            data.tfds("squares", "train", data_dir=tmp_path)
    first = struct.unpack("<Q", whole[:8])[0] + 16
    shard.write_bytes(whole[first:])
    with pytest.raises(ValueError, match="tfrecord-00001-of-00003 holds 3 records, and its data set says 4"):
        data.tfds("squares", "train", data_dir=tmp_path)


def test_damaged_files(as_tfrecord, tmp_path):
    import shutil

    shutil.copytree(as_tfrecord / "squares", tmp_path / "squares")
    shard = tmp_path / "squares" / "1.0.0" / "squares-train.tfrecord-00000-of-00003"
    whole = bytearray(shard.read_bytes())
    payload = whole.copy()
    payload[40] ^= 4
    shard.write_bytes(payload)
    source = data.tfds("squares", "train", data_dir=tmp_path)
    assert source[1]["label"] == 1
    with pytest.raises(ValueError, match=r"the record at byte 12 of \S+-00000-of-00003 is damaged: its checksum"):
        source[0]
    # 80 zero bytes look like five empty records.
    for content in (bytes(80), bytes([whole[0] ^ 1]) + bytes(whole[1:])):
        shard.write_bytes(content)
        with pytest.raises(ValueError, match="tfrecord-00000-of-00003 is damaged at byte 0, or is not a TFRecord file"):
            data.tfds("squares", "train", data_dir=tmp_path)


def test_other_formats(as_tfrecord, tmp_path):
    import shutil

    shutil.copytree(as_tfrecord / "squares", tmp_path / "squares")
    info = tmp_path / "squares" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"riegeli"'))
    with pytest.raises(ValueError, match=r"squares/1\.0\.0 was prepared as riegeli; prepare it as array_record"):
        data.tfds("squares", "train", data_dir=tmp_path)


def test_pictures_with_other_channels_than_declared(tmp_path):
    class Transparent(Squares, skip_registration=True):
        CHANNELS = 4

    try:
        Transparent(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    except Exception as error:  # a TFDS that checks by itself is welcome to
        pytest.skip(f"TFDS refuses to write it: {error}")
    source = data.tfds("transparent", "train", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"'image' has shape \(4, 5, 4\), and the data set declares 3 channels"):
        source[0]
    with pytest.raises(ValueError, match="row 0 of the source cannot be read: ValueError: 'image' has shape"):
        data.stream(source, example)


def test_rows_and_features_that_are_not_there(prepared):
    source = data.tfds("squares", "test", data_dir=prepared)
    for row in (3, -1):
        with pytest.raises(IndexError, match=f"row {row} of 3 records"):
            source[row]
    with pytest.raises(ValueError, match=r"the records have no feature 'size'; they have image, label, numbers"):
        source.column("size")
    with pytest.raises(ValueError, match=r"rows run from 0 to 3; there are records 0, ..., 2"):
        source.take([0, 3])
    with pytest.raises(ValueError, match=r"rows has shape \(0,\)"):
        source.take([])


def test_load_refuses_random_decoding_and_what_does_not_fit(monkeypatch):
    with pytest.raises(ValueError, match="example asks for a random generator, and here every record is decoded once"):
        data.load([1, 2], lambda record, rng: (record, 0))
    with pytest.raises(ValueError, match=r"inputs has shape \(3,\) in row 70 and \(2,\) in row 0"):
        data.load(range(100), lambda row: (np.zeros(2 + (row == 70)), 0))
    device = type("Device", (), {"memory_stats": lambda self: {"bytes_limit": 2**30}})()
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    with pytest.raises(MemoryError, match=r"1000 examples of 4000004 bytes are 3\.7 GiB, and the device holds 1\.0"):
        data.load(range(1000), lambda row: (np.zeros(1_000_000), 0))
