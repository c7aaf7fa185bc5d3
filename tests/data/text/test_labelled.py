"""Labelled texts from files and from records."""

from __future__ import annotations

import numpy as np
import pytest

from bayestl import data
from bayestl.data import text

tfds = pytest.importorskip("tensorflow_datasets")


def test_published_files(data_dir):
    """How many lines and classes each has, from the data directory's README; a cross-check by the bytes themselves."""
    facts = {
        "rt-polarity.all": (10_662, 2),
        "custrev.all": (3775, 2),
        "TREC.train.all": (5452, 6),
        "TREC.test.all": (500, 6),
    }
    for name, (num, classes) in facts.items():
        path = data_dir / "text" / name
        labelled = text.read_labelled(path, encoding="latin-1")
        assert len(labelled.texts) == len(labelled.labels) == num
        assert sorted(set(labelled.labels.tolist())) == list(range(classes))
        again = b"".join(b"%d %s\n" % (y, t.encode("latin-1")) for t, y in zip(*labelled, strict=True))
        assert again.split(b"\n")[:-1] == [line.rstrip(b"\r") for line in path.read_bytes().split(b"\n")[:num]]
    with pytest.raises(ValueError, match=r"rt-polarity.all: line 32 is not in utf-8: byte 0xe9; .*'latin-1'"):
        text.read_labelled(data_dir / "text" / "rt-polarity.all")


def test_lines_end_at_newlines_alone(tmp_path):
    path = tmp_path / "reviews"
    path.write_bytes("\ufeff1 a\x85b\u2028c\x0cd\r\n0\n12  e \n\n".encode())
    labelled = text.read_labelled(path)
    assert labelled.texts == ("a\x85b\u2028c\x0cd", "", " e ")
    assert labelled.labels.tolist() == [1, 0, 12]
    assert labelled.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"1 a\ngood film\n", r"line 2 begins with b'good'; every line is a label"),
        (b"1 a\n\n1 b\n", r"line 2 begins with b''"),
        (b"-1 a\n", r"line 1 begins with b'-1'"),
        (b"99999999999 a\n", r"line 1 begins with b'99999999999'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content, message, tmp_path):
    path = tmp_path / "reviews"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        text.read_labelled(path)


def test_encodings_are_checked(tmp_path):
    path = tmp_path / "reviews"
    path.write_text("1 a\n")
    with pytest.raises(ValueError, match="encoding is 'latin1-ish', which Python does not know"):
        text.read_labelled(path, encoding="latin1-ish")
    with pytest.raises(ValueError, match="a newline is not one byte; convert"):
        text.read_labelled(path, encoding="utf-16")


class Reviews(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Texts and labels, as TFDS keeps them."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"review": tfds.features.Text(), "grade": tfds.features.ClassLabel(names=["bad", "good"])}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"review": "un film réussi", "grade": "good"}
        yield 1, {"review": "", "grade": "bad"}


def test_text_features(tmp_path):
    Reviews(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    records = data.tfds("reviews", "train", data_dir=tmp_path)
    labelled = text.from_records(records, "review", "grade")
    assert labelled.texts == ("un film réussi", "")
    assert labelled.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "records holds none"),
        ([{"text": "a"}], "record 0 has no feature 'label'; it holds 'text'"),
        (
            [{"text": "a", "label": 0}, {"text": b"caf\xe9", "label": 0}],
            "'text' of record 1 is not UTF-8, from its byte 4",
        ),
        ([{"text": 3, "label": 0}], "'text' of record 0 is a int; a text is bytes or a string"),
        ([{"text": "a", "label": 0.5}], "'label' of record 0 is 0.5; labels are whole numbers"),
        ({"a": 1}, "records cannot be read by number"),
    ],
)
def test_what_is_wrong_with_records_is_said(records, message):
    with pytest.raises((TypeError, ValueError), match=message):
        text.from_records(records)
