"""Published weights from whatever file they come in, without running anything that is in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from bayestl._arguments import check_arguments
from bayestl._limits import check_regular
from bayestl.pretrained import _flax, _hub, _keras, _npz, _orbax, _safetensors, _shards, _torch
from bayestl.pretrained._weights import Ask, FileContents, Weights
from bayestl.pretrained._zip import Archive

_HDF5 = b"\x89HDF\r\n\x1a\n"
_KNOWN = "safetensors, torch state dicts, Keras .h5 and .keras, .npz, .npy, Flax msgpack and Orbax folders"


def read(
    source: str | os.PathLike[str],
    *,
    key: str | None = None,
    filename: str | None = None,
    revision: str | None = None,
    max_bytes: int = 2**32,
) -> Weights:
    """The arrays of a weight file under flat names, with the dtypes of the file.

    The first bytes decide which kind of file it is. Nothing in it is trusted or executed: pickles are followed opcode
    by opcode and may name nothing but tensors and plain containers, lengths are checked before memory is taken, links
    out of a file are refused, and what is parsed (names, JSON, pickles, lists of members) is limited in size, since it
    takes many times its size in memory. torch is not needed for torch's files, nor Keras for Keras'; HDF5 needs h5py.
    HDF5 is read by a process of its own, whose time and (on Linux) memory are limited, since its library can be made to
    hang, or to unpack a few bytes to any size. (Orbax folders are parsed by Orbax and TensorStore in this process: take
    those from people whom you know.)

    Names are those of the file, levels joined by "/":

    ============================ ==============================================================================
    safetensors, also sharded    as they are (give the ``.index.json`` of shards)
    torch ``.pth .pt .bin``      those of the state dict, ``layer1.0.conv1.weight``; a checkpoint that holds one
                                 state dict among other things gives that, one that holds several asks for ``key``
    Keras ``.h5`` (older)        ``conv1/kernel``: layer and weight, without ``:0`` and the model's name
    Keras ``.weights.h5 .keras`` ``layers/dense/vars/0``; ``metadata["layers"]`` gives the layers' own names
    ``.npz .npy``                as they are; the file's stem
    Flax msgpack, Orbax folder   the path in the tree, ``params/Dense_0/kernel``
    ============================ ==============================================================================

    Memory: arrays are read-only views on the file, read when used, for safetensors, torch, ``.npy`` and uncompressed
    ``.npz`` (except where alignment or byte order need a copy); they are copied once from HDF5, msgpack and Orbax.

    Args:
        source: a file, an Orbax folder, or a Hugging Face id ``"organisation/name"``, whose file is taken from the
            cache or downloaded once.
        key: only the arrays below this name, without it in front: ``key="state_dict"``, ``key="params"``. ``""``: all.
            In a torch file, objects of whatever kind may then lie beside that part; they are left out, and named in
            ``metadata["skipped"]``.
        filename: the file in the repository, or in the folder ``source``.
        revision: branch, tag or commit of the repository; ``main`` by default.
        max_bytes: what a file that is smaller than its arrays (compressed, broadcast, never written) may expand to.

    Raises:
        ValueError: the file is cut short, damaged, hostile or of an unknown kind; the message says which and where.
        FileNotFoundError: there is no such file, or it is not cached and the hub cannot be reached.
        ImportError: h5py or huggingface_hub is needed and not installed.

    Example:
        >>> import tempfile
        >>> from safetensors.numpy import save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({"head/kernel": np.ones((4, 2), np.float16)}, f"{folder}/net.safetensors")
        ...     weights = btl.pretrained.read(f"{folder}/net.safetensors", key="head")
        >>> weights.format, weights.size, weights.arrays["kernel"].dtype
        ('safetensors', 8, dtype('float16'))
    """
    check_arguments(read, locals(), skip=("max_bytes",))
    if type(max_bytes) is not int or max_bytes < 1:
        raise ValueError(f"max_bytes is {max_bytes!r}; give a positive number of bytes")
    text = os.fspath(source)
    if filename is not None and (PurePosixPath(filename).is_absolute() or ".." in PurePosixPath(filename).parts):
        raise ValueError(f"filename {filename!r} leads out of {text}; give a path below it")
    path, beside, label = _located(text, filename, revision)
    with _blamed(label):
        content = _read_path(path, Ask(key, max_bytes), beside)
    return Weights(content.arrays, content.format, label, content.metadata)


def _located(source: str, filename: str | None, revision: str | None) -> tuple[Path, Callable[[str], Path], str]:
    """The file, how to find others beside it, and what to call it."""
    path = Path(source)
    if path.exists() or not _hub.is_id(source) or _reader_by_suffix(path) is not None:
        path = path if filename is None else path / filename
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}, nor is it an id organisation/name of a hub")
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for ids of a hub, and {path} is a local path")
        return path, path.with_name, str(path)
    path = _hub.fetch(source, filename, revision)
    folder = PurePosixPath(filename or "").parent

    def beside(name: str) -> Path:
        return _hub.fetch(source, str(folder / name), revision)

    return path, beside, f"{source}@{revision or 'main'}/{filename or path.name}"


@contextlib.contextmanager
def _blamed(label: str) -> Iterator[None]:
    """Say in every error which file it was."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error


def _read_path(path: Path, ask: Ask, beside: Callable[[str], Path] | None) -> FileContents:
    """``beside`` is None for a part of something else, which cannot have parts itself."""
    if path.is_dir():
        return _orbax.read(path, ask)
    check_regular(path)
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError("the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError("it is a Git LFS pointer, not the weights; fetch them with `git lfs pull`")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _safetensors.MAX_HEADER:
        return _safetensors.read(path, ask)
    if head.lstrip()[:1] == b"{" and beside is not None:
        return _shards.read(path, ask, beside, lambda part, part_ask: _read_path(part, part_ask, None))
    reader = _reader_by_content(head) or _reader_by_suffix(path)
    if reader is None:
        raise ValueError(f"it begins with {head[:8]!r}, which is not a known kind of weight file: {_KNOWN}")
    return reader(path, ask)


def _reader_by_content(head: bytes) -> Callable[[Path, Ask], FileContents] | None:
    if head.startswith(_HDF5):
        return _keras.read_hdf5
    if head.startswith(b"PK\x03\x04"):
        return _read_zip
    if head.startswith(b"\x93NUMPY"):
        return _npz.read_npy
    if head[0] == 0x80 and head[1:2] in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        return _torch.read_legacy
    key = {0xDE: head[3:4], 0xDF: head[5:6]}.get(head[0], head[1:2] if 0x81 <= head[0] <= 0x8F else b"")
    is_map = bool(key) and (0xA0 <= key[0] <= 0xBF or key[0] in (0xD9, 0xDA, 0xDB))  # of msgpack, with text as keys
    return _flax.read if is_map else None


def _reader_by_suffix(path: Path) -> Callable[[Path, Ask], FileContents] | None:
    """For files that are too short, or too damaged, to say what they are."""
    if path.suffix == ".safetensors":
        return _safetensors.read
    if path.suffix in (".h5", ".hdf5"):
        return _keras.read_hdf5
    if path.suffix in (".keras", ".npz"):
        return _read_zip
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl"):
        return _torch.read_legacy
    if path.suffix == ".npy":
        return _npz.read_npy
    return _flax.read if path.suffix == ".msgpack" else None


def _read_zip(path: Path, ask: Ask) -> FileContents:
    archive = Archive(path)
    names = list(archive.members)
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return _torch.read_zip(archive, ask)
    if _keras.WEIGHTS in names:
        return _keras.read_archive(archive, ask)
    if names and all(name.endswith(".npy") for name in names):
        return _npz.read_npz(archive, ask)
    raise ValueError(f"it is a zip archive, but neither of torch, Keras nor NumPy: it holds {names[:5]}")
