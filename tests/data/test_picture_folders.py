"""Folders of pictures as they are: folders in classes, links, archives, cameras, palettes, later changes."""

from __future__ import annotations

import io
import os
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from bayestl import data
from bayestl.data._class_folders import class_folders
from bayestl.data._folder import _fingerprint


def encoded(value: int = 0, mode: str = "RGB", **settings) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (3, 5, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, "PNG", **settings)
    return file.getvalue()


def write(top: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    return top


def names_in(path: Path, root: str | None = None, nested: bool = False) -> dict[str, list[str]]:
    with class_folders(path, root, nested, 1 << 20) as folders:
        for names in folders.names.values():
            assert [folders.read(name) for name in names] == [CONTENT] * len(names)
        return folders.names


PICTURE = encoded()
CONTENT = b"not looked into here"
NESTED = {
    f"{label}s/{label}s{k}/{i}.jpg": CONTENT for label in ("negative", "positive") for k in (1, 7) for i in (0, 1)
}
CLASSES = {
    label: [f"{label}/{label}{k}/{i}.jpg" for k in (1, 7) for i in (0, 1)] for label in ("negatives", "positives")
}


@pytest.mark.parametrize("top", ["", "set/"])
@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_folders_inside_class_folders(tmp_path, top, kind):
    files = {top + name: content for name, content in NESTED.items()}
    path = write(tmp_path / "x", files) if kind == "folder" else tmp_path / "x"
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    assert names_in(path, nested=True) == CLASSES
    if top:
        assert names_in(path, root="set", nested=True) == CLASSES
    else:
        with pytest.raises(ValueError, match=r"class folders in negatives, positives; choose one.*nested=True"):
            names_in(path)


def test_links_on_disk_are_followed(tmp_path):
    elsewhere = write(tmp_path / "elsewhere", {"cats/a/1.jpg": CONTENT, "one.jpg": CONTENT})
    pets = write(tmp_path / "pets", {"dog/0.jpg": CONTENT})
    (pets / "cat").symlink_to(elsewhere / "cats" / "a")
    (pets / "dog" / "1.jpg").symlink_to(elsewhere / "one.jpg")
    assert names_in(pets) == {"cat": ["cat/1.jpg"], "dog": ["dog/0.jpg", "dog/1.jpg"]}
    before = _fingerprint(pets, {})
    write(elsewhere, {"cats/a/2.jpg": CONTENT})
    assert _fingerprint(pets, {}) != before
    (pets / "dog" / "lost.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"pets has the link 'dog/lost\.jpg', which leads nowhere; remove or mend it"):
        names_in(pets)
    (pets / "dog" / "lost.jpg").unlink()
    (pets / "dog" / "again").symlink_to(pets)
    with pytest.raises(ValueError, match="pets has the link 'dog/again', which leads to a folder that holds it"):
        names_in(pets, nested=True)


@pytest.mark.parametrize("kind", ["bz2", "zip"])
def test_archives_of_other_kinds(tmp_path, kind):
    files = {f"{label}/{i}.png": encoded(i) for label in ("cat", "dog") for i in range(2)}
    path = tmp_path / f"pets.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(f"pets/{name}", content)
    else:
        with tarfile.open(path, "w:bz2") as archive:
            archive.add(write(tmp_path / "pets", files), "pets")
    source = data.folder(path, tmp_path / "cache")
    assert source.column("name").tolist() == [name.encode() for name in files]
    assert [source[i]["image"] for i in range(4)] == list(files.values())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"is not a complete tar, tar\.gz, tar\.bz2 or zip archive"):
        data.folder(path, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_two_members_of_one_name(tmp_path, kind):
    path = tmp_path / "pets"
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for _ in range(2):
                archive.addfile(tarfile.TarInfo("cat/0.png"))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("cat/0.png", b"a")
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("cat/0.png", b"b")
    with pytest.raises(ValueError, match=r"pets has two members of the name 'cat/0\.png'; which is meant is not clear"):
        names_in(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"filename": "../0.png"}, "which points outside"),
        ({"external_attr": (stat.S_IFLNK | 0o777) << 16}, "is a link or a device"),
        ({"filename": "cat/" + "a" * 5000}, "whose name has 5,004 letters"),
    ],
)
def test_members_of_zip_archives_that_are_refused(tmp_path, change, words):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        member = zipfile.ZipInfo(change.get("filename", "cat/0.png"))
        member.external_attr = change.get("external_attr", 0)
        archive.writestr(member, b"a")
    with pytest.raises(ValueError, match=f"x.zip has a member .*{words}"):
        names_in(tmp_path / "x.zip")


# ---------------------------------------------------------------- pictures


def turned(orientation: int) -> bytes:
    """A picture with an EXIF orientation, written in place of the pixels it should show."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(7, exif=exif)


# What each EXIF orientation asks for, of an array (height, width, 3): EXIF 2.3, table of tag 274.
TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_upright_pictures(orientation):
    stored = np.random.default_rng(7).integers(0, 256, (3, 5, 3), np.uint8)
    np.testing.assert_array_equal(data.decode_picture(turned(orientation)), stored)
    np.testing.assert_array_equal(data.decode_picture(turned(orientation), upright=True), TURNS[orientation](stored))


def test_an_import_says_which_pictures_are_turned_and_makes_rgb_of_palettes(tmp_path):
    palette, exif = encoded(3, "P"), Image.Exif()
    exif[0x0112] = 6
    turned_palette = encoded(4, "P", exif=exif)
    files = {"cat/0.png": encoded(), "cat/1.png": turned(6), "dog/0.png": palette, "dog/1.png": turned_palette}
    pets = write(tmp_path / "pets", files)
    with pytest.raises(
        ValueError,
        match=r"2 of 4 pictures of pets cannot be used: 'dog/0\.png' is palette \(mode P\).*by palette_to_rgb=True",
    ):
        data.folder(pets, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"is palette \(mode P\), not RGB; .*folder\(\.\.\., palette_to_rgb=True\)"):
        data.decode_picture(palette)
    with pytest.warns(UserWarning, match=r"2 of 4 pictures of pets are to be turned .* such as 'cat/1\.png'.*upright"):
        source = data.folder(pets, tmp_path / "cache", palette_to_rgb=True)
    assert source[1]["image"] == files["cat/1.png"]
    for row, content in ((2, palette), (3, turned_palette)):
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
        np.testing.assert_array_equal(data.decode_picture(source[row]["image"], upright=True), upright)
    clear = encoded(3, "P", transparency=0)
    write(pets, {"dog/0.png": clear})
    with pytest.raises(ValueError, match=r"'dog/0\.png' is palette with transparency \(mode P\)"):
        data.folder(pets, tmp_path / "cache", palette_to_rgb=True)


def test_large_pictures_are_bad_ones_until_they_are_allowed():
    assert data.decode_picture(encoded(), max_pixels=15).shape == (3, 5, 3)
    with pytest.raises(ValueError, match=r"the picture has 5 x 3 pixels, more than the 14 allowed; make it smaller"):
        data.decode_picture(encoded(), max_pixels=14)


def test_libraries_of_the_extra_for_data(monkeypatch):
    for library in ("PIL", "grain"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r'pictures are decoded by PIL: pip install "bayestl\[data\]"'):
        data.decode_picture(PICTURE)
    stream = data.stream([(0.0, 1.0)] * 4, lambda record: record)
    with (
        stream.open(jax.random.key(0), 2, 1) as window,
        pytest.raises(ImportError, match=r"read by grain: pip install"),
    ):
        window(0)


# ---------------------------------------------------------------- changes after an import


def test_what_makes_another_import(tmp_path):
    pets = write(tmp_path / "pets", {"cat/0.png": b"0000", "dog/0.png": b"1111"})
    imports = [_fingerprint(pets, {})]

    def assert_another():
        imports.append(_fingerprint(pets, {}))
        assert len(set(imports)) == len(imports)

    assert _fingerprint(pets, {}) == imports[0]
    (pets / "bird").mkdir()  # a class without a picture, which an import refuses
    assert_another()
    (pets / "cat" / "0.png").rename(pets / "cat" / "1.png")
    assert_another()
    times = (pets / "cat" / "1.png").stat()
    (pets / "cat" / "1.png").write_bytes(b"2222")  # as many bytes, and the times put back
    os.utime(pets / "cat" / "1.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (pets / "cat" / "1.png").stat().st_mtime_ns == times.st_mtime_ns
    assert_another()
