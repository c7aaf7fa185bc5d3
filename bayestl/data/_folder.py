"""Folders of pictures, imported once and then read like any prepared data set."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bayestl._arguments import check_arguments
from bayestl.data._class_folders import ClassFolders, class_folders, in_folder
from bayestl.data._pictures import MOST_PIXELS
from bayestl.data._records import Records, records
from bayestl.data._review import Review, Rules

_FORMAT = 2
_REPORT = "import.json"


def folder(
    path: str | Path,
    cache: str | Path,
    *,
    root: str | None = None,
    skip_bad: bool = False,
    gray_to_rgb: bool = False,
    palette_to_rgb: bool = False,
    nested: bool = False,
    max_bytes: int = 2**34,
    max_pixels: int = MOST_PIXELS,
) -> Records:
    """Pictures in class folders, ``<path>/<class>/<picture>``, as records with random access.

    The first call looks at every picture and writes all of them into one array_record data set under ``cache``; later
    calls read that, without opening the folder's files again. A folder or archive that has changed (the names in it,
    or a file's size or times, that of its last change on disk included), or other options, make another import beside
    it. It warns of pictures whose EXIF orientation says that they are to be turned, which :func:`decode_picture` does
    on request. Records keep the encoded bytes::

        {"image": bytes, "label": 0, "name": b"cat/1.jpg"}

    in the order of the classes and of the names in them. Decode them in the ``example`` of :func:`stream` or
    :func:`load`, with :func:`decode_picture`.

    Args:
        path: a folder of class folders, in which links are followed; or a tar, tar.gz, tar.bz2 or zip of one, which is
            read in place.
        cache: where imports are kept; it takes about the space of the pictures.
        root: the folder inside ``path`` that holds the class folders, such as ``"train"``; needed where there are
            several.
        skip_bad: leave out pictures that cannot be decoded or that are not RGB; their names are then in ``skipped``.
        gray_to_rgb: store grayscale pictures as RGB ones with three equal channels.
        palette_to_rgb: store pictures with a palette of opaque colours as RGB ones, pixel by pixel the same.
        nested: pictures may lie in folders inside the class folders, ``<path>/<class>/<any>/<picture>``.
        max_bytes: what an archive that is smaller may unpack to.
        max_pixels: larger pictures are not decoded, and count as bad ones.

    Raises:
        FileNotFoundError: no such path.
        ValueError: pictures that are corrupt, too large or not RGB, named; a class without a picture; files that are
            not in a class folder; links that lead nowhere or in a circle, pipes; archives with links, with members that
            point outside, with two members of one name, or that unpack to more than ``max_bytes``.

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
    check_arguments(folder, locals())
    import tensorflow_datasets as catalogue

    path = Path(path)
    rules = Rules(skip_bad, gray_to_rgb, palette_to_rgb, max_pixels)
    options = {"format": _FORMAT, "root": root, "nested": nested, **rules._asdict()}
    target = Path(cache) / f"{path.name.split('.')[0]}-{_fingerprint(path, options)}"
    if not target.exists():
        with class_folders(path, root, nested, max_bytes) as folders:
            _import(folders, target, path.name, rules)
    skipped = tuple(json.loads((target / _REPORT).read_text())["skipped"])
    builder = catalogue.builder_from_directory(target / "pictures" / "1.0.0")
    return records(builder, "train", {"image": catalogue.decode.SkipDecoding()}, skipped)


def _fingerprint(path: Path, options: dict[str, Any]) -> str:
    """Short name of an import: another one when names, files or options change.

    Looks at names, sizes and times, not into files. One of the times is that of the last change on disk, which stays
    true where a program sets the other one back; and folders count too, since an empty one is a class without pictures.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; give a folder of class folders, or a tar or zip archive of one")
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for name in in_folder(path) if path.is_dir() else [""]:
        digest.update(f"{path.name}/{name}|".encode())
        if not name.endswith("/"):
            stat = (path / name).stat()
            digest.update(f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _import(folders: ClassFolders, target: Path, where: str, rules: Rules) -> None:
    """Write the pictures, and which were left out, to ``target``, which appears all at once."""
    review = Review.of(folders, rules)
    total = sum(map(len, folders.names.values()))
    if review.bad and not rules.skip_bad:
        raise ValueError(review.complaint(where, total))
    usable = {label: [name for name in names if name not in review.bad] for label, names in folders.names.items()}
    for label, names in usable.items():
        if not names:
            raise ValueError(f"class {label!r} of {where} has no usable picture left; add some, or remove its folder")
    unfinished = target.with_name(f"{target.name}-unfinished-{uuid.uuid4().hex[:8]}")
    try:
        _write(usable, folders.read, unfinished, review.converted)
        (unfinished / _REPORT).write_text(json.dumps({"source": where, "skipped": sorted(review.bad)}))
        with contextlib.suppress(OSError):  # another process may have been faster; what it wrote is the same
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if review.turned:
        warnings.warn(
            f"{len(review.turned)} of {total} pictures of {where} are to be turned before they are shown, such as "
            f"{review.turned[0]!r}: their EXIF orientation says so. decode_picture does it with upright=True, and "
            "otherwise leaves them as they lie in the file",
            stacklevel=3,
        )


def _write(
    usable: dict[str, list[str]], read: Callable[[str], bytes], data_dir: Path, converted: Callable[[bytes], bytes]
) -> None:
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
                yield number, {"image": converted(read(name)), "label": label, "name": name}

    builder = Pictures(data_dir=data_dir, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints a message about a download
        builder.download_and_prepare()
