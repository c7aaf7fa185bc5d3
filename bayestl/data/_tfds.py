"""Data sets of the TFDS catalogue and other prepared ones, read without TensorFlow."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from bayestl._arguments import check_arguments
from bayestl.data._records import Records, records


def tfds(
    name: str, split: str, *, data_dir: str | Path | None = None, decoders: Any = None, download: bool = False
) -> Records:
    """The records of one split of a TFDS data set.

    Sets prepared as array_record or as TFRecord are read, the latter by their framing, so a cache that was made long
    ago serves without TensorFlow. The network is contacted only with ``download=True``.

    Args:
        name: name in the catalogue, or of a set of your own: ``"cifar10"``, ``"name/config:1.0.0"``.
        split: ``"train"``, or a slice such as ``"train[:10%]"`` or ``"train+test"``.
        data_dir: where data sets are; by default TFDS's own, ``~/tensorflow_datasets``.
        decoders: TFDS decoders by feature; ``{"image": tfds.decode.SkipDecoding()}`` gives the encoded bytes, for
            :func:`decode_picture` at a smaller size.
        download: fetch and prepare the set when it is missing. Those of the catalogue need TensorFlow for that once.

    Raises:
        ValueError: no such data set or split, a cut file, a format without random access.
        FileNotFoundError: not prepared; says which files are needed and where they go.

    Example:
        >>> btl.data.tfds("cifar10", "train", data_dir="nowhere")
        Traceback (most recent call last):
        ...
        FileNotFoundError: cifar10/3.0.2 is not prepared in nowhere; ...
    """
    check_arguments(tfds, locals())
    builder = _builder(name, data_dir)
    # Asked about a folder that is not there, TFDS warns.
    if not (builder.data_path.exists() and builder.is_prepared()):
        if not download:
            raise FileNotFoundError(_what_is_missing(builder))
        builder = _prepared(builder, name, data_dir)
    return records(builder, split, decoders)


def _builder(name: str, data_dir: str | Path | None, file_format: str | None = None) -> Any:
    import tensorflow_datasets as catalogue
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    try:
        return catalogue.builder(name, data_dir=data_dir, file_format=file_format)
    except DatasetNotFoundError:
        where = "the default folder" if data_dir is None else data_dir
        raise ValueError(
            f"there is no data set {name!r}, neither in the TFDS catalogue nor prepared in {where}; see "
            "tfds.list_builders(), or give data_dir"
        ) from None


def _prepared(builder: Any, name: str, data_dir: str | Path | None) -> Any:
    """Download and prepare a data set as array_record."""
    if type(builder).__module__.startswith("tensorflow_datasets.") and importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            f"preparing {_version(builder)} from the catalogue needs TensorFlow once (pip install tensorflow); reading "
            f"it later does not. Or copy a folder prepared elsewhere to {builder.data_path}"
        )
    builder = _builder(name, data_dir, file_format="array_record")
    builder.download_and_prepare()
    return builder


def _version(builder: Any) -> str:
    """Name, configuration and version, as in the path of its folder."""
    return str(builder.data_path.relative_to(builder.data_dir_root))


def _what_is_missing(builder: Any) -> str:
    """What a data set needs before it can be read, found without the network."""
    words = (
        f"{_version(builder)} is not prepared in {builder.data_dir_root}; copy a folder prepared elsewhere to "
        f"{builder.data_path}, or give download=True to fetch and prepare it"
    )
    files = [f"{info.filename or url} ({info.size}) from {url}" for url, info in (builder.url_infos or {}).items()]
    if files:
        listed = "; ".join(files[:8]) + (f"; and {len(files) - 8} more" if len(files) > 8 else "")
        manual = builder.data_dir_root / "downloads" / "manual"
        words += f". It is made from: {listed}. Without a network put these, names unchanged, into {manual} first"
    return words
