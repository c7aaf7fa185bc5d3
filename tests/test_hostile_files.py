"""Small files that ask for large memory, or that wait for ever: each is read in a process that is measured."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from bayestl import gaussians

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured by Linux's means")

MIB = 1 << 20
# Without limits each of these files takes from 600 MB to 80 GB, or never ends.
MOST_MIB = 450

# One line of JSON for each case: what was raised, and how far memory grew at most.
PROGRAM = """
import json, resource, sys
import bayestl as btl
from bayestl import data, gaussians, pretrained

def status(field):
    return int(next(l for l in open("/proc/self/status") if l.startswith(field)).split()[1]) * 1024

readers = {
    "weights": lambda path: pretrained.read(path),
    "weights up to 100 MB": lambda path: pretrained.read(path, max_bytes=100_000_000),
    "pictures": lambda path: data.folder(path, path + "-cache", max_bytes=1_000_000),
    "picture": lambda path: data.decode_picture(open(path, "rb").read()),
    "gaussian": gaussians.load,
    "gaussian's header": gaussians.read_header,
    "posterior": btl.load,
    "word vectors": lambda path: pretrained.read_vectors(path, max_bytes=50_000_000),
}
import tensorflow_datasets, PIL.Image, orbax.checkpoint  # what comes late is not to count
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + (3 << 29), resource.RLIM_INFINITY))
for name, reader, path in json.loads(sys.argv[1]):
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts again here
    before, said = status("VmRSS"), ""
    try:
        content = readers[reader](path)
        said = f"gave {content.size} numbers" if reader.startswith("weights") else "gave something"
    except BaseException as error:
        said = f"{type(error).__name__}: {str(error)[:1000]}"
    print(json.dumps([name, said, (status("VmHWM") - before) >> 20]), flush=True)
    content = None
"""


# ---------------------------------------------------------------- files


def long_key_torch(path: Path) -> None:
    """A dict with one key of a megabyte, over a list of 20,000 None."""
    key = b"X" + struct.pack("<I", MIB) + b"k" * MIB
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}" + key + b"](" + b"N" * 20_000 + b"es.")


def long_key_msgpack(path: Path) -> None:
    path.write_bytes(msgpack.packb({"k" * MIB: [None] * 20_000}))


def lists_that_announce(path: Path) -> None:
    """500 lists, each in the one before, and each said to have a million entries."""
    path.write_bytes(b"\x81\xa1a" + b"\xdd\x00\x0f\x00\x00" * 500 + bytes(MIB))


def copied_lists(path: Path) -> None:
    """One list of 100,000 entries, and 2,000 times the call that makes a tuple of it."""
    body = b"](" + b"N" * 100_000 + b"eq\x00](" + b"ctorch\nSize\nq\x01" + b"h\x01h\x00\x85R" * 2_000 + b"e"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02" + body + b".")


def storage(key: str, count: int) -> bytes:
    text = [b"X" + struct.pack("<I", len(word)) + word.encode() for word in ("storage", key, "cpu")]
    return b"(" + text[0] + b"ctorch\nFloatStorage\n" + text[1] + text[2] + b"J" + struct.pack("<i", count) + b"tQ"


def unused_storages(path: Path) -> None:
    """Twelve storages of 64 MB that take 64 KB each in the file; one element of each is used."""
    number = 16 * MIB
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(MIB)) for _ in range(64)) + packer.flush()
    checksum = 0
    for _ in range(64):
        checksum = zlib.crc32(bytes(MIB), checksum)
    one = b"(J\x01\x00\x00\x00t"
    body = b"}("
    for i in range(12):
        key = b"X\x02\x00\x00\x00" + f"{i:02d}".encode()
        call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(str(i), number) + b"K\x07" + one * 2 + b"\x89NtR"
        body += key + call
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02" + body + b"u.")
        for i in range(12):
            info = zipfile.ZipInfo(f"net/data/{i}")
            archive.writestr(info, packed)
            info.compress_type, info.file_size, info.CRC = zipfile.ZIP_DEFLATED, 64 * MIB, checksum


def large_configuration(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("config.json", b"[" + b"[]," * (12 * MIB) + b"0]")
        archive.writestr("model.weights.h5", b"")


def large_chunk(path: Path) -> None:
    """One number, in a chunk of a gigabyte."""
    with h5py.File(path, "w") as file:
        file.create_dataset("w", (1,), "f4", maxshape=(None,), chunks=(250_000_000,), compression="gzip")


def long_names_hdf5(path: Path) -> None:
    """Groups in groups with long names: each name stands in those of all arrays below."""
    with h5py.File(path, "w") as file:
        group = file
        for depth in range(40):
            group = group.create_group(f"{depth:030000d}")
        shared = group.create_dataset("0", data=np.zeros(1, np.float32))
        for i in range(1, 1000):
            group[str(i)] = shared


def long_header(path: Path) -> None:
    header = b'{"a":[' + b"[]," * (12 * MIB) + b"0]}"
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def long_index(path: Path) -> None:
    path.write_bytes(b'{"weight_map":{},"a":[' + b"[]," * (12 * MIB) + b"0]}")


def many_long_axes(path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [int("9" * 4000)] * 1000, "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def many_members(path: Path) -> None:
    """A zip archive whose list of members is said to take 20 MB."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 20 * MIB, 4, 0)
    path.write_bytes(b"PK\x03\x04" + bytes(20 * MIB) + end)


def index_of_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe.safetensors"))
    path.write_text(json.dumps({"weight_map": {"w": "pipe.safetensors"}}))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def class_of_a_pipe(path: Path) -> None:
    (path / "cat").mkdir(parents=True)
    os.mkfifo(path / "cat" / "0.png")


def with_header(path: Path, change, tensors: dict[str, np.ndarray]) -> None:
    """A file of a low-rank Gaussian with another header and other arrays."""
    gaussian = gaussians.low_rank({"w": jnp.zeros(3)}, {"w": jnp.ones(3)}, {"w": jnp.ones((1, 3))})
    gaussians.save(path, gaussian)
    with safe_open(path, "np") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["header"])
    change(header)
    save_file(arrays | tensors, path, metadata | {"header": json.dumps(header)})


def rank_over_nothing(path: Path) -> None:
    def change(header):
        header["structure"]["settings"]["rank"] = 40_000
        header["parameters"][0]["shape"] = [0]

    nothing = np.zeros(0, np.float32)
    arrays = {"mean/w": nothing, "diagonal/w": nothing, "variances/w": nothing}
    with_header(
        path, change, {"basis/w": np.zeros((40_000, 0), np.float32), "eigenvalues": np.zeros(40_000, np.float32)}
    )
    with safe_open(path, "np") as file:
        names = set(file.keys())
        header = file.metadata()
        kept = {name: file.get_tensor(name) for name in names if name not in arrays}
    save_file(kept | {name: nothing for name in names & set(arrays)}, path, header)


def nested_names(path: Path) -> None:
    """200 structures on top of each other over a parameter whose path has a megabyte."""

    def change(header):
        structure = header["structure"]
        for _ in range(200):
            structure = {"kind": "low_rank", "settings": {"rank": 1}, "parts": [structure]}
        header["structure"] = structure
        header["parameters"][0]["path"] = [["dict", "k" * MIB]]
        header["containers"] = "other"

    with_header(path, change, {})


def notes_of_a_header(path: Path) -> None:
    save_file({"w": np.zeros(1)}, path, {"format": "bayestl.posterior", "header": "[" + "[]," * (8 * MIB) + "0]"})


def tar_header(name: str, size: int, kind: bytes, rest: bytes = b"") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT)[:512])
    block[386 : 386 + len(rest)] = rest
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def sparse_tar(path: Path) -> None:
    """A member with one byte after a hole of 4.5 GB."""
    octal = lambda number: f"{number:011o}\0".encode()  # noqa: E731
    size = 4_500_000_000
    sparse = octal(size - 1) + octal(1) + bytes(72) + b"\0" + octal(size)
    path.write_bytes(tar_header("cat/0.png", 1, tarfile.GNUTYPE_SPARSE, sparse) + b"x" + bytes(511 + 1024))


def tar_with_a_long_header(path: Path) -> None:
    """Records of a header, each of which becomes an entry of a dict."""
    size = 32 * MIB
    path.write_bytes(tar_header("a", size, tarfile.XHDTYPE) + b"6 a=b\n" * (size // 6) + bytes(size % 6 + 1024))


def bomb(path: Path) -> None:
    with tarfile.open(path, "w:bz2") as archive:
        member = tarfile.TarInfo("cat/0.png")
        member.size = 30 * MIB
        archive.addfile(member, fileobj=open("/dev/zero", "rb"))  # noqa: SIM115


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"cat/{i}.png", bytes(MIB))


def large_picture(path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(MIB)) for _ in range(8)) + packer.flush()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def program_for_ghostscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")


def many_vectors(path: Path) -> None:
    """30,000 words, each with a thousand zeros, which take a byte for every thousand."""
    with gzip.open(path, "wb", 1) as file:
        zeros = b" 0" * 1000 + b"\n"
        for start in range(0, 30_000, 1000):
            file.write(b"".join(b"w%d" % number + zeros for number in range(start, start + 1000)))


def long_line_of_vectors(path: Path) -> None:
    with gzip.open(path, "wb", 1) as file:
        file.write(b"a 1 2\n")
        for _ in range(600):
            file.write(b"x" * MIB)


def vectors_that_are_announced(path: Path) -> None:
    path.write_bytes(b"400000 1000\na" + b" 0" * 1000 + b"\n")


def long_vectors_that_are_announced(path: Path) -> None:
    with gzip.open(path, "wb", 1) as file:
        file.write(b"2 120000000\na " + bytes(4 * MIB))


CASES = [
    (long_key_torch, "weights", "ValueError: .*its names take more than 67,108,864 letters"),
    (long_key_msgpack, "weights", "ValueError: .*its names take more than 67,108,864 letters"),
    (lists_that_announce, "weights", "ValueError: .*its lists announce .* more parts"),
    (copied_lists, "weights", "ValueError: .*copies more than 4,000,000 entries"),
    (unused_storages, "weights", "gave 12 numbers"),
    (unused_storages, "weights up to 100 MB", "ValueError: .*unpacks to .*give a larger max_bytes"),
    (large_configuration, "weights", r"ValueError: .*member 'config\.json' takes .* may have 16,777,216"),
    (large_chunk, "weights", "ValueError: .*array 'w' takes 4 bytes, and lies in chunks of 1,000,000,000"),
    (long_names_hdf5, "weights", "ValueError: .*its names and its configuration take more than 16,777,216 letters"),
    (long_header, "weights", "ValueError: .*its header takes 37,748,745 bytes, more than"),
    (long_index, "weights", "ValueError: .*too large for an index of weights"),
    (many_long_axes, "weights", "ValueError: .*shape and offsets of 'a' .* that an array can have"),
    (many_members, "weights", "ValueError: .*its list of members takes 20,971,520 bytes"),
    (index_of_a_pipe, "weights", r"ValueError: .*'pipe\.safetensors' is a pipe, not a file"),
    (pipe, "weights", "ValueError: .*is a pipe, not a file"),
    (pipe, "gaussian", "ValueError: .*is a pipe, not a file"),
    (pipe, "posterior", "ValueError: .*is a pipe, not a file"),
    (many_vectors, "word vectors", "ValueError: .*its vectors take more than the 50,000,000 bytes allowed"),
    (long_line_of_vectors, "word vectors", "ValueError: .*line 2 has more than the 1,048,576 bytes allowed"),
    (vectors_that_are_announced, "word vectors", "ValueError: .*announces 400,000 vectors of 1,000 numbers"),
    (long_vectors_that_are_announced, "word vectors", "ValueError: .*announces 2 vectors of 120,000,000 numbers"),
    (pipe, "word vectors", "ValueError: .*is a pipe, not a file"),
    (pipe, "pictures", "ValueError: .*is a pipe, not a file"),
    (class_of_a_pipe, "pictures", "ValueError: .*'cat/0.png', which is a pipe, a socket or a device"),
    (rank_over_nothing, "gaussian", "ValueError: .*rank 40,000 over 0 numbers"),
    (nested_names, "gaussian's header", "ValueError: .*the names of its arrays take more than 67,108,864 letters"),
    (notes_of_a_header, "posterior", "ValueError: .*its header takes .* bytes, more than the 16,777,216"),
    (sparse_tar, "pictures", "ValueError: .*member 'cat/0.png' with holes"),
    (tar_with_a_long_header, "pictures", "ValueError: .*a header takes 33,554,432 bytes"),
    (bomb, "pictures", "ValueError: .*unpacks to more than the 1,000,000 bytes allowed"),
    (zip_bomb, "pictures", "ValueError: .*unpacks to more than the 1,000,000 bytes allowed"),
    (large_picture, "picture", "ValueError|TooLarge: the picture has 13,000 x 13,000 pixels"),
    (program_for_ghostscript, "picture", "ValueError: the picture cannot be decoded: UnidentifiedImageError"),
]
NAMES = [f"{make.__name__} as {reader}" for make, reader, _ in CASES]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, tuple[str, int]]:
    """Name of a case to what was said, and by how many MiB memory grew."""
    cases = []
    for name, (make, reader, _) in zip(NAMES, CASES, strict=True):
        path = tmp_path_factory.mktemp("hostile") / "thing"
        make(path)
        cases.append((name, reader, str(path)))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(cases)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {name: (said, grown) for name, said, grown in lines}


@pytest.mark.parametrize(("name", "words"), [(n, words) for n, (_, _, words) in zip(NAMES, CASES, strict=True)])
def test_small_files_take_little_memory_and_end(outcomes, name, words):
    said, grown = outcomes[name]
    assert re.match(words, said, re.DOTALL), said
    assert grown < MOST_MIB, f"{grown} MiB"
