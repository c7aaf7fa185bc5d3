"""What is known of the real files that need no reader of this package: text, tables, and the CIFAR-10 archive."""

from __future__ import annotations

import collections
import tarfile

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("name", "lines", "labels"),
    [
        ("rt-polarity.all", 10662, {0: 5331, 1: 5331}),
        ("custrev.all", 3775, None),
        ("TREC.train.all", 5452, None),
        ("TREC.test.all", 500, None),
    ],
)
def test_sentences(data_dir, name, lines, labels):
    # Not splitlines, which in latin-1 also breaks lines at the byte 0x85.
    found = (data_dir / "text" / name).read_text(encoding="latin-1").rstrip("\n").split("\n")
    assert len(found) == lines
    counts = collections.Counter(int(line[: line.index(" ")]) for line in found)
    assert sorted(counts) == list(range(6 if name.startswith("TREC") else 2))
    # Pang and Lee 2005: as many positive sentences as negative ones.
    assert labels is None or counts == labels


@pytest.mark.parametrize(
    ("name", "rows", "sizes"),
    [("concrete", 1030, (927, 103)), ("energy", 768, None), ("yacht", 308, None), ("wine-quality-red", 1599, None)],
)
def test_regression_sets(data_dir, name, rows, sizes):
    folder = data_dir / "uci" / name
    table = np.loadtxt(folder / "data.txt")
    assert len(table) == rows
    features, target = (
        np.loadtxt(folder / f"index_{which}.txt", dtype=float).astype(int) for which in ("features", "target")
    )
    assert set(features.tolist()).isdisjoint(np.atleast_1d(target).tolist())
    assert max(features.max(), target.max()) < table.shape[1]
    for split in range(5):
        train, test = (np.loadtxt(folder / f"index_{part}_{split}.txt").astype(int) for part in ("train", "test"))
        assert sorted([*train, *test]) == list(range(rows))
        assert sizes is None or (len(train), len(test)) == sizes


def test_cifar10_archive(data_dir):
    with tarfile.open(data_dir / "cifar10_jpeg.tar.gz") as tar:
        parts = [member.name.split("/")[-3:-1] for member in tar if member.name.endswith(".jpg")]
    counts = collections.Counter(tuple(part) for part in parts)
    assert sorted(set(counts.values())) == [1000, 5000]
    assert {(part, number) for (part, _), number in counts.items()} == {("train", 5000), ("test", 1000)}
    assert len(counts) == 20
