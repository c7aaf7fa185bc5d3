"""Class folders and archives of pictures: imported once, bad ones named, hostile archives refused."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from bayestl import data


def encoded(mode: str = "RGB", form: str = "PNG", seed: int = 0, shape: tuple[int, int] = (6, 9)) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, form)
    return file.getvalue()


def write(top: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return top


def pack(path: Path, files: dict[str, bytes], folders: tuple[str, ...] = (), mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name in folders:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


# Written in another order than the one in which they are read.
FILES = {f"{label}/{i}.png": encoded(seed=i + 10 * (label == "dog")) for label in ("dog", "cat") for i in (2, 0, 1)}
NAMES = [b"cat/0.png", b"cat/1.png", b"cat/2.png", b"dog/0.png", b"dog/1.png", b"dog/2.png"]


def assert_pets(source: data.Records):
    assert source.column("name").tolist() == NAMES
    np.testing.assert_array_equal(source.column("label"), [0, 0, 0, 1, 1, 1])
    assert source.features["label"].names == ["cat", "dog"]
    assert source.skipped == ()
    for record, name in zip((source[i] for i in range(6)), NAMES, strict=True):
        assert record["image"] == FILES[name.decode()]


def test_class_folders(tmp_path):
    files = FILES | {"cat/.DS_Store": b"x", ".hidden/a.png": b"x"}
    assert_pets(data.folder(write(tmp_path / "pets", files), tmp_path / "cache"))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("prefix", ["", "pets/", "./"])
def test_archives(tmp_path, mode, prefix):
    archive = pack(tmp_path / "pets.tar", {prefix + name: content for name, content in FILES.items()}, mode=mode)
    assert_pets(data.folder(archive, tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_one_of_several_roots(tmp_path, kind):
    files = {f"train/{name}": content for name, content in FILES.items()}
    files |= {"test/bird/0.png": encoded(seed=99)}
    path = write(tmp_path / "pets", files) if kind == "folder" else pack(tmp_path / "pets.tar", files)
    with pytest.raises(ValueError, match="has class folders in test, train; choose one: root='test'"):
        data.folder(path, tmp_path / "cache")
    assert_pets(data.folder(path, tmp_path / "cache", root="train"))
    assert len(data.folder(path, tmp_path / "cache", root="test/")) == 1
    with pytest.raises(ValueError, match="holds no files under valid; give a folder of class folders"):
        data.folder(path, tmp_path / "cache", root="valid")


def test_pictures_are_imported_once_and_again_when_they_change(tmp_path, monkeypatch):
    pets, cache = write(tmp_path / "pets", FILES), tmp_path / "cache"
    data.folder(pets, cache)
    (imported,) = cache.iterdir()
    written = (imported / "import.json").stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr("bayestl.data._folder.class_folders", lambda *args: pytest.fail("files were opened again"))
        assert_pets(data.folder(pets, cache))
    assert (imported / "import.json").stat().st_mtime_ns == written
    (pets / "dog" / "3.png").write_bytes(encoded(seed=7))
    assert len(data.folder(pets, cache)) == 7
    os.utime(pets / "dog" / "3.png", (1, 1))
    data.folder(pets, cache)
    assert len(list(cache.iterdir())) == 3


def test_an_interrupted_import_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    pets, cache = write(tmp_path / "pets", FILES), tmp_path / "cache"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data.folder(pets, cache)
    assert list(cache.iterdir()) == []
    assert_pets(data.folder(pets, cache))


def test_streamed_and_loaded_pictures_are_the_same(tmp_path):
    def example(record):
        return data.decode_picture(record["image"], (4, 4)), record["label"]

    source = data.folder(write(tmp_path / "pets", FILES), tmp_path / "cache")
    streamed, loaded = data.stream(source, example), data.load(source, example)
    key = jax.random.key(0)
    np.testing.assert_array_equal(streamed.batch(key, 3, 4).inputs, loaded.batch(key, 3, 4).inputs)


# ---------------------------------------------------------------- decoding


def test_decoding_keeps_every_pixel_and_format():
    values = np.random.default_rng(3).integers(0, 256, (6, 9, 3), np.uint8)
    decoded = data.decode_picture(encoded(seed=3))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, values)
    for form in ("JPEG", "WEBP", "BMP"):
        assert data.decode_picture(encoded(form=form)).shape == (6, 9, 3)


def test_resizing_is_bilinear_and_stretches():
    # Doubled bilinearly, a row 0, 100 has quarter steps between the two pixel centres and is constant beyond them.
    file = io.BytesIO()
    Image.fromarray(np.repeat(np.uint8([[[0], [100]]]), 3, axis=2)).save(file, "PNG")
    resized = data.decode_picture(file.getvalue(), (3, 4))
    assert resized.shape == (3, 4, 3)
    np.testing.assert_array_equal(resized[:, :, 0], np.tile([0, 25, 75, 100], (3, 1)))
    nearest = data.decode_picture(file.getvalue(), (1, 4), resample=Image.Resampling.NEAREST)
    np.testing.assert_array_equal(nearest[0, :, 1], [0, 0, 100, 100])
    with pytest.raises(ValueError, match=r"size is \(0, 4\); give \(height, width\)"):
        data.decode_picture(file.getvalue(), (0, 4))


BAD = [
    (encoded("L"), r"is grayscale \(mode L\)"),
    (encoded("LA"), r"is grayscale with transparency \(mode LA\)"),
    (encoded("RGBA"), r"is RGB with transparency \(mode RGBA\)"),
    (encoded("P"), r"is palette \(mode P\)"),
    (encoded("CMYK", "JPEG"), r"is CMYK \(mode CMYK\)"),
    (encoded("RGB", "JPEG", shape=(90, 90))[:900], "cannot be decoded"),
    (b"no picture at all", "cannot be decoded"),
    (b"", "cannot be decoded"),
]


@pytest.mark.parametrize(("content", "words"), BAD)
def test_bad_pictures_are_not_decoded(content, words):
    with pytest.raises(ValueError, match=f"the picture {words}"):
        data.decode_picture(content)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(("content", "words"), BAD)
def test_bad_pictures_are_named_and_skipped_only_on_request(tmp_path, content, words):
    pets, cache = write(tmp_path / "pets", FILES | {"cat/bad.jpg": content}), tmp_path / "cache"
    with pytest.raises(ValueError, match=f"1 of 7 pictures of pets cannot be used: 'cat/bad.jpg' {words}.*skip_bad"):
        data.folder(pets, cache)
    for _ in range(2):  # the second time from the import
        source = data.folder(pets, cache, skip_bad=True)
        assert source.skipped == ("cat/bad.jpg",)
        assert source.column("name").tolist() == NAMES


def test_many_bad_pictures_are_counted(tmp_path):
    pets = write(tmp_path / "pets", FILES | {f"cat/{i}.gif": b"GIF" for i in range(12)})
    with pytest.raises(ValueError, match=r"12 of 18 pictures .* and 4 more; mend or remove them"):
        data.folder(pets, tmp_path / "cache")
    assert len(data.folder(pets, tmp_path / "cache", skip_bad=True).skipped) == 12


def test_grayscale_becomes_rgb_only_on_request(tmp_path):
    pets = write(tmp_path / "pets", FILES | {"cat/gray.png": encoded("L"), "cat/line.png": encoded("1")})
    with pytest.raises(ValueError, match=r"2 of 8 .*'cat/gray.png' is grayscale .*gray_to_rgb=True"):
        data.folder(pets, tmp_path / "cache")
    source = data.folder(pets, tmp_path / "cache", gray_to_rgb=True)
    record = source[source.column("name").tolist().index(b"cat/gray.png")]
    gray = np.asarray(Image.open(io.BytesIO(encoded("L"))))
    np.testing.assert_array_equal(data.decode_picture(record["image"]), np.repeat(gray[:, :, None], 3, axis=2))
    assert (len(source), source.skipped) == (8, ())
    write(pets, {"cat/clear.png": encoded("RGBA")})
    with pytest.raises(ValueError, match=r"1 of 9 pictures of pets cannot be used: 'cat/clear.png' is RGB with transp"):
        data.folder(pets, tmp_path / "cache", gray_to_rgb=True)


def test_classes_without_a_picture(tmp_path):
    pets = write(tmp_path / "pets", FILES)
    (pets / "bird").mkdir()
    with pytest.raises(ValueError, match=r"class 'bird' of pets has no picture; add some, or remove its folder"):
        data.folder(pets, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"class 'bird' of pets.tar has no picture"):
        data.folder(pack(tmp_path / "pets.tar", FILES, ("bird/",)), tmp_path / "cache")
    write(pets, {"bird/0.jpg": b"broken"})
    with pytest.raises(ValueError, match="class 'bird' of pets has no usable picture left"):
        data.folder(pets, tmp_path / "cache", skip_bad=True)


@pytest.mark.parametrize("name", ["top.png", "cat/small/0.png"])
def test_pictures_outside_class_folders(tmp_path, name):
    pets = write(tmp_path / "pets", FILES | {name: encoded()})
    with pytest.raises(ValueError, match=f"pets has '{name}', which is not class/picture; .*root="):
        data.folder(pets, tmp_path / "cache")


@pytest.mark.parametrize("name", ["/etc/cat/0.png", "../cat/0.png", "cat/../../0.png", "cat\\..\\0.png"])
def test_archives_with_members_that_point_outside(tmp_path, name):
    archive = pack(tmp_path / "pets.tar", FILES | {name: encoded()})
    with pytest.raises(ValueError, match=r"pets.tar has a member .*, which points outside; such archives are refused"):
        data.folder(archive, tmp_path / "cache")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_archives_with_links_or_devices(tmp_path, kind):
    archive = pack(tmp_path / "pets.tar", FILES)
    with tarfile.open(archive, "a") as more:
        member = tarfile.TarInfo("cat/9.png")
        member.type, member.linkname = kind, "cat/0.png"
        more.addfile(member)
    with pytest.raises(ValueError, match=r"pets.tar has a member 'cat/9.png' that is a link or a device"):
        data.folder(archive, tmp_path / "cache")


def test_paths_that_are_no_data(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere; give a folder of class folders, or a tar"):
        data.folder(tmp_path / "nowhere", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no files; give a folder of class folders"):
        data.folder(tmp_path / "empty", tmp_path / "cache")
    (tmp_path / "words.txt").write_text("no archive " * 100)
    with pytest.raises(ValueError, match=r"words\.txt is not a complete tar, tar\.gz, tar\.bz2 or zip archive"):
        data.folder(tmp_path / "words.txt", tmp_path / "cache")


@pytest.mark.parametrize(("mode", "cut"), [("w", cut) for cut in (10_240, 10_500, 11_000, 12_000)] + [("w:gz", 200)])
def test_cut_archives(tmp_path, mode, cut):
    archive = pack(tmp_path / "pets.tar", {f"cat/{i}.bmp": encoded(form="BMP", seed=i) for i in range(40)}, mode=mode)
    assert mode == "w:gz" or archive.stat().st_size == 40 * 1024 + 10_240  # members, and zeros at the end
    archive.write_bytes(archive.read_bytes()[:-cut])
    with pytest.raises(
        ValueError, match=r"pets\.tar is not a complete tar, tar\.gz, tar\.bz2 or zip archive: .*; copy it again"
    ):
        data.folder(archive, tmp_path / "cache")


# ---------------------------------------------------------------- real pictures


def test_cats_and_dogs(data_dir, tmp_path):
    source = data.folder(data_dir / "cats_vs_dogs.tar", tmp_path)
    assert source.features["label"].names == ["cat", "dog"]
    np.testing.assert_array_equal(np.bincount(source.column("label")), [560, 559])
    assert source.skipped == ()
    for record in (source[row] for row in range(1119)):
        width, height = Image.open(io.BytesIO(record["image"])).size
        assert 50 <= min(width, height) <= max(width, height) <= 500
        assert record["name"].startswith((b"cat/", b"dog/")[record["label"]])


@pytest.mark.slow
def test_cifar10_jpeg(data_dir, tmp_path):
    with pytest.raises(ValueError, match=r"cifar10_jpeg.tar.gz has class folders in test, train; choose one"):
        data.folder(data_dir / "cifar10_jpeg.tar.gz", tmp_path)
    for root, number in (("test", 1000), ("train", 5000)):
        source = data.folder(data_dir / "cifar10_jpeg.tar.gz", tmp_path, root=root)
        assert source.features["label"].names[:3] == ["airplane", "automobile", "bird"]
        np.testing.assert_array_equal(np.bincount(source.column("label")), [number] * 10)
        assert data.decode_picture(source[-1 + len(source)]["image"]).shape == (32, 32, 3)
