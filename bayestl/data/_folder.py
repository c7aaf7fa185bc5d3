"""Folders of pictures, imported once and then read like any prepared data set."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from bayestl.data._class_folders import ClassFolders, class_folders
from bayestl.data._pictures import GRAY, as_rgb, described, opened
from bayestl.data._records import Records, records

_FORMAT = 1
_REPORT = "import.json"
_SHOWN = 8


def folder(
    path: str | Path,
    cache: str | Path,
    *,
    root: str | None = None,
    skip_bad: bool = False,
    gray_to_rgb: bool = False,
) -> Records:
    """Pictures in class folders, ``<path>/<class>/<picture>``, as records with random access.

    The first call looks at every picture and writes all of them into one array_record data set under ``cache``; later
    calls read that, without opening the folder's files again. A folder or archive that has changed, or other options,
    make another import beside it. Records keep the encoded bytes::

        {"image": bytes, "label": 0, "name": b"cat/1.jpg"}

    in the order of the classes and of the names in them. Decode them in the ``example`` of :func:`stream` or
    :func:`load`, with :func:`decode_picture`.

    Args:
        path: a folder of class folders, or a tar or tar.gz of one (which is read in place, never unpacked).
        cache: where imports are kept; it takes about the space of the pictures.
        root: the folder inside ``path`` that holds the class folders, such as ``"train"``; needed where there are
            several.
        skip_bad: leave out pictures that cannot be decoded or that are not RGB; their names are then in ``skipped``.
        gray_to_rgb: store grayscale pictures as RGB ones with three equal channels.

    Raises:
        FileNotFoundError: no such path.
        ValueError: pictures that are corrupt or not RGB, named; a class without a picture; files that are not in a
            class folder; archives with links, or with members that point outside.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> top = tempfile.TemporaryDirectory()
        >>> for name in ("cat", "dog"):
        ...     directory = pathlib.Path(top.name, "pictures", name)
        ...     directory.mkdir(parents=True)
        ...     Image.new("RGB", (40, 30)).save(directory / "1.png")
        >>> source = btl.data.folder(pathlib.Path(top.name, "pictures"), cache=pathlib.Path(top.name, "cache"))
        >>> data = btl.data.load(source, lambda r: (btl.data.decode_picture(r["image"], (8, 8)), r["label"]))
        >>> source.features["label"].names, data.inputs.shape
        (['cat', 'dog'], (2, 8, 8, 3))
    """
    import tensorflow_datasets as catalogue

    path = Path(path)
    options = {"format": _FORMAT, "root": root, "skip_bad": skip_bad, "gray_to_rgb": gray_to_rgb}
    target = Path(cache) / f"{path.name.split('.')[0]}-{_fingerprint(path, options)}"
    if not target.exists():
        with class_folders(path, root) as folders:
            _import(folders, target, path.name, skip_bad, gray_to_rgb)
    skipped = tuple(json.loads((target / _REPORT).read_text())["skipped"])
    builder = catalogue.builder_from_directory(target / "pictures" / "1.0.0")
    return records(builder, "train", {"image": catalogue.decode.SkipDecoding()}, skipped)


def _fingerprint(path: Path, options: dict[str, Any]) -> str:
    """Short name of an import: another one when files or options change. Looks at sizes and times, not into files."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; give a folder of class folders, or a tar or tar.gz of one")
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.relative_to(path.parent).as_posix()}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _import(folders: ClassFolders, target: Path, where: str, skip_bad: bool, gray_to_rgb: bool) -> None:
    """Write the pictures, and which were left out, to ``target``, which appears all at once."""
    bad = dict(_unusable(folders, gray_to_rgb))
    if bad and not skip_bad:
        raise ValueError(_complaint(where, bad, sum(map(len, folders.names.values()))))
    usable = {label: [name for name in names if name not in bad] for label, names in folders.names.items()}
    for label, names in usable.items():
        if not names:
            raise ValueError(f"class {label!r} of {where} has no usable picture left; add some, or remove its folder")
    unfinished = target.with_name(f"{target.name}-unfinished-{uuid.uuid4().hex[:8]}")
    try:
        _write(usable, folders.read, unfinished, gray_to_rgb)
        (unfinished / _REPORT).write_text(json.dumps({"source": where, "skipped": sorted(bad)}))
        with contextlib.suppress(OSError):  # another process may have been faster; what it wrote is the same
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unusable(folders: ClassFolders, gray_to_rgb: bool) -> Iterator[tuple[str, str]]:
    """Names of pictures that cannot be used, and why."""
    for name in chain.from_iterable(folders.names.values()):
        try:
            mode = opened(folders.read(name)).mode
        except ValueError:
            yield name, "cannot be decoded"
            continue
        if mode != "RGB" and not (gray_to_rgb and mode in GRAY):
            yield name, f"is {described(mode)}"


def _complaint(where: str, bad: dict[str, str], total: int) -> str:
    listed = ", ".join(f"{name!r} {why}" for name, why in [*bad.items()][:_SHOWN])
    more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return (
        f"{len(bad)} of {total} pictures of {where} cannot be used: {listed}{more}; mend or remove them, leave them "
        "out with skip_bad=True, or make RGB of grayscale ones with gray_to_rgb=True"
    )


def _write(usable: dict[str, list[str]], read: Callable[[str], bytes], data_dir: Path, gray_to_rgb: bool) -> None:
    """Pictures as they are encoded, their labels and names, as an array_record data set of TFDS."""
    import tensorflow_datasets as catalogue

    class Pictures(catalogue.core.GeneratorBasedBuilder, skip_registration=True):
        """Pictures in class folders."""

        VERSION = catalogue.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {
                "image": catalogue.features.Image(shape=(None, None, 3)),
                "label": catalogue.features.ClassLabel(names=list(usable)),
                "name": catalogue.features.Text(),
            }
            described = catalogue.features.FeaturesDict(features)
            return self.dataset_info_from_configs(features=described, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            pairs = ((label, name) for label, names in usable.items() for name in names)
            for number, (label, name) in enumerate(pairs):
                encoded = read(name)
                if gray_to_rgb and opened(encoded).mode in GRAY:
                    encoded = as_rgb(encoded)
                yield number, {"image": encoded, "label": label, "name": name}

    builder = Pictures(data_dir=data_dir, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints a message about a download
        builder.download_and_prepare()
