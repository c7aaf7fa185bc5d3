"""Files of word vectors: what published ones hold, every way to write them, and what is said of damaged ones."""

from __future__ import annotations

import gzip
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bayestl.pretrained import WordVectors, read_vectors

WORDS = ("the", "film", "at name@domain.com", "naïve", "\x85", "'s")
VALUES = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)


def lines(header: bool = False, end: str = "\n", words: tuple[str, ...] = WORDS) -> bytes:
    rows = [" ".join([word, *map(repr, row.tolist())]) for word, row in zip(words, VALUES, strict=False)]
    first = [f"{len(words)} 7"] if header else []
    return "".join(row + end for row in [*first, *rows]).encode()


def records(newline: bytes = b"\n", words: tuple[str, ...] = WORDS) -> bytes:
    rows = [word.encode() + b" " + row.tobytes() + newline for word, row in zip(words, VALUES, strict=False)]
    return f"{len(words)} 7\n".encode() + b"".join(rows)


PLAIN = tuple(word.replace(" ", "_") for word in WORDS)  # word2vec's own files have no blanks in words
FORMS = {
    "glove": lines(),
    "glove of DOS": lines(end="\r\n"),
    "word2vec": lines(header=True),
    "fasttext": lines(header=True, end=" \n"),
    "word2vec-binary": records(words=PLAIN),
    "word2vec-binary without newlines": records(b"", PLAIN),
}


def written(folder: Path, content: bytes, packed: bool = False) -> Path:
    path = folder / "some file"
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


# ---------------------------------------------------------------- published files


@cache
def published(path: Path) -> WordVectors:
    return read_vectors(path)


@pytest.fixture
def vectors_dir(data_dir):
    return data_dir / "vectors"


@pytest.fixture
def glove(vectors_dir):
    return published(vectors_dir / "glove.6B.50d.top60k.txt.gz")


def test_glove(glove):
    """The facts that the data directory's README states of the published file."""
    assert glove.format == "glove"
    assert glove.vectors.shape == (60_000, 50)
    assert glove.vectors.dtype == np.float32
    assert glove.words[:10] == ("the", ",", ".", "of", "to", "and", "in", "a", '"', "'s")
    assert glove.words[-1] == "eales"
    np.testing.assert_array_equal(glove.vector("the")[:5], np.float32([0.418, 0.24968, -0.41242, 0.1217, 0.34527]))
    # Sums to the digits stated; rounding of 3 million float32 numbers is of order 1e-4.
    assert abs(glove.vectors.sum(dtype=np.float64) - 28433.3410) < 1e-3
    assert abs(np.linalg.norm(glove.vectors.astype(np.float64), axis=1).mean() - 4.79194) < 1e-5
    neighbours = [(word, round(cosine, 4)) for word, cosine in glove.nearest("movie", 3)]
    assert neighbours == [("movies", 0.9322), ("film", 0.9310), ("films", 0.8937)]
    king, man, woman = (glove.vector(w) / np.linalg.norm(glove.vector(w)) for w in ("king", "man", "woman"))
    answers = dict(glove.nearest(king - man + woman, 2))
    assert abs(answers["queen"] - 0.8524) < 5e-5


def test_the_binary_file_holds_the_same_bits(glove, vectors_dir):
    binary = read_vectors(vectors_dir / "glove.6B.50d.top20k.bin")
    assert binary.format == "word2vec-binary"
    assert binary.words == glove.words[:20_000]
    np.testing.assert_array_equal(binary.vectors.view(np.uint32), glove.vectors[:20_000].view(np.uint32))


def test_a_part_of_a_published_file(glove, vectors_dir):
    path = vectors_dir / "glove.6B.50d.top60k.txt.gz"
    few = read_vectors(path, words=["queen", "king", "no such word"], limit=5000)
    assert few.words == ("king", "queen")  # the order of the file
    np.testing.assert_array_equal(few.vectors, [glove.vector("king"), glove.vector("queen")])
    assert read_vectors(path, limit=100).words == glove.words[:100]


def test_fasttext(vectors_dir):
    lee = read_vectors(vectors_dir / "odd" / "lee_fasttext.vec")
    assert lee.format == "fasttext"
    assert lee.vectors.shape == (1762, 10)
    assert lee.words[:5] == ("the", "to", "of", "in", "and")


def test_words_that_are_not_utf8(vectors_dir):
    path = vectors_dir / "odd" / "pang_lee_polarity_fasttext.vec"
    with pytest.raises(ValueError, match=r"line 150, of the word b'\\x97', has a word that is not UTF-8, .*'replace'"):
        read_vectors(path)
    skipped = read_vectors(path, errors="skip")
    assert [entry.number for entry in skipped.skipped] == [149, 283, 434, 443, 1572]
    assert skipped.vectors.shape == (1689, 100)
    replaced = read_vectors(path, errors="replace")
    assert replaced.vectors.shape == (1694, 100)
    assert replaced.words[148] == "\ufffd"
    assert replaced.words[282] == "clich\ufffds"
    kept = np.delete(replaced.vectors, np.array([149, 283, 434, 443, 1572]) - 1, axis=0)
    np.testing.assert_array_equal(kept, skipped.vectors)


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(form, packed, tmp_path):
    given = read_vectors(written(tmp_path, FORMS[form], packed))
    assert given.format == form.split()[0]
    assert given.words == (PLAIN if "binary" in form else WORDS)
    np.testing.assert_array_equal(given.vectors, VALUES)
    assert given.num_skipped == 0


def test_one_dimension_and_one_word(tmp_path):
    binary = b"1 1\nw " + np.float32(1).tobytes() + b"\n"
    for content in (b"1 1\nw 1\n", b"w 1.0\n", binary):
        given = read_vectors(written(tmp_path, content))
        assert (given.words, given.vectors.tolist()) == (("w",), [[1.0]])


def test_a_number_may_be_a_word_of_its_own(tmp_path):
    """A file without header whose first word is a number, and one whose words end in blanks and signs."""
    content = b"7 0.5 1\n. . . 1 2\n-- 3 4\n"
    given = read_vectors(written(tmp_path, content))
    assert given.words == ("7", ". . .", "--")
    assert given.vectors.tolist() == [[0.5, 1], [1, 2], [3, 4]]


def test_the_first_of_two_is_kept(tmp_path):
    given = read_vectors(written(tmp_path, b"a 1 2\nb 3 4\na 5 6\nb 7 8\n"))
    assert given.vectors.tolist() == [[1, 2], [3, 4]]
    assert [(entry.number, entry.word) for entry in given.skipped] == [(3, "a"), (4, "b")]
    assert "came before" in given.skipped[0].reason
    assert given.num_skipped == 2


def test_only_some_words(tmp_path):
    for content in (lines(), lines(header=True), records(words=PLAIN)):
        given = read_vectors(written(tmp_path, content), words={"'s", "the", "absent"})
        assert given.words == ("the", "'s")
        np.testing.assert_array_equal(given.vectors, VALUES[[0, 5]])


def test_a_mark_of_utf8_is_no_part_of_the_first_word(tmp_path):
    for form, content in FORMS.items():
        given = read_vectors(written(tmp_path, b"\xef\xbb\xbf" + content))
        assert given.words == (PLAIN if "binary" in form else WORDS)
        np.testing.assert_array_equal(given.vectors, VALUES)


@pytest.mark.parametrize("stated", [6, 8])
@pytest.mark.parametrize("errors", ["strict", "replace", "skip"])
def test_a_binary_file_whose_header_states_another_dimension(stated, errors, tmp_path):
    """What is no word is not taken for one that is merely not UTF-8."""
    values = np.random.default_rng(1).normal(size=(40, 7)).astype(np.float32)
    rows = [b"w%d " % number + row.tobytes() + b"\n" for number, row in enumerate(values)]
    path = written(tmp_path, b"30 %d\n" % stated + b"".join(rows))
    with pytest.raises(ValueError, match=rf"vector \d+ has b.* where a word was expected; .* not the {stated} numbers"):
        read_vectors(path, errors=errors)


def test_a_limit_reads_the_beginning_of_a_damaged_file(tmp_path):
    content = lines(header=True)[:-20]
    with pytest.raises(ValueError, match="cut short"):
        read_vectors(written(tmp_path, content))
    assert read_vectors(written(tmp_path, content), limit=5).words == WORDS[:5]


# ---------------------------------------------------------------- errors

LONG = b"x" * (1 << 20)
BAD = {
    "empty": (b"", "it is empty; copy it again"),
    "blank": (b"\n\n", "it is empty"),
    "no numbers": (b"once upon a time\nthere was\n", "not a known kind of word vectors: word2vec as text"),
    "fastText's model": (b"\xba\x16\x4f\x2f" + bytes(100), r"fastText's own model.*take the \.vec file"),
    "a zip archive": (b"PK\x03\x04" + bytes(100), "a zip archive; unpack it"),
    "a pickle": (b"\x80\x04\x95" + bytes(100), "a pickle, which is never run"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "fewer numbers": (
        b"a 1 2 3\nb 1 2 3\nc 1 2\nd 1 2 3\n",
        "line 3, of the word b'c', has 2 numbers, and.* have 3; copy",
    ),
    "more numbers": (b"a 1 2\nb 1 2\nc 1 2 3\n", "line 3, of the word b'c', has 3 numbers, and the vectors have 2"),
    "other than the header": (
        b"2 3\na 1.00 2.00\nb 1.00 2.00\n",
        "line 2, of the word b'a', has 2 numbers, and the vectors have 3",
    ),
    "cut in a line": (b"2 3\na 1 2 3\nb 1 2", "line 3, of the word b'b', has 2 numbers.* cut short; copy"),
    "cut after a line": (lines(header=True).rsplit(b"\n", 3)[0] + b"\n", "announces 6 .*ends after 4: .*limit=4 reads"),
    "more than announced": (
        b"2 3\na 1 2 3\nb 1 2 3\nc 1 2 3\n",
        r"announces 2 vectors, and another one follows them, of b'c'; limit=2",
    ),
    "cut binary": (records(words=PLAIN)[:-6], 'vector 6, of the word b"\'s", should have 28 bytes.* limit=5 reads'),
    "binary with more": (records(words=PLAIN) + b"x " + bytes(28), "another one follows them, of b'x'; limit=6"),
    "NaN": (b"a 1 2\nb nan 4\n", "line 2, of the word b'b', has nan as number 1 of 2; vectors are finite"),
    "infinite": (b"1 2\na 1 1e39\n", "line 2, of the word b'a', has inf as number 2 of 2"),
    "NaN binary": (
        b"1 2\na " + np.float32([1, np.nan]).tobytes(),
        "vector 1, of the word b'a', has nan as number 2 of 2",
    ),
    "a word for a number": (b"1 2\na 1 x\n", "line 2, of the word b'a', has b'x' where a number was expected"),
    "an empty line": (b"a 1 2\n\nb 1 2\n", "line 2 is empty, and others follow"),
    "not UTF-8": (
        b"caf\xe9 1 2\nb 1 2\n",
        r"line 1, of the word b'caf\\xe9', has a word that is not UTF-8, from its byte 4",
    ),
    "a header alone": (b"5 10", "announces 5 vectors.* it is cut short.* copy it again$"),
    "no vectors": (b"0 50\n", "announces 0 vectors of 50 numbers; there is nothing"),
    "absurd count": (b"99999999999 50\na " + b"1 " * 50 + b"\n", "announces 99,999,999,999 vectors.* header is wrong"),
    "absurd dimension": (b"1 99999999999\na 1 2\n", "announces 1 vectors of 99,999,999,999 numbers"),
    "absurd header": (b"9" * 5000 + b" 50\na 1 2\n", "numbers that no file can hold"),
    "a long line": (b"a 1 2\n" + LONG + b" 1 2\n", "line 2 has more than the 1,048,576 bytes"),
    "a long word": (b"9 2\n" + b"x" * 100_000, "cut short|more than 65,536 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(name, tmp_path):
    content, words = BAD[name]
    for packed in (False, True):
        path = written(tmp_path, content, packed)
        with pytest.raises(ValueError, match=words) as caught:
            read_vectors(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert len(str(caught.value)) < len(str(path)) + 400


def test_a_packed_file_that_is_cut(tmp_path):
    path = tmp_path / "vectors.gz"
    path.write_bytes(gzip.compress(lines() * 1000)[:-50])
    with pytest.raises(ValueError, match=r"gzip file that is cut short or damaged .*copy it again"):
        read_vectors(path)
    path.write_bytes(gzip.compress(lines())[:20] + bytes(50))
    with pytest.raises(ValueError, match="gzip file that is cut short or damaged"):
        read_vectors(path)


def test_what_is_asked_for_is_checked(tmp_path):
    path = written(tmp_path, lines())
    with pytest.raises(ValueError, match=r"errors is 'ignore'; give one of 'strict', 'replace', 'skip'"):
        read_vectors(path, errors="ignore")
    with pytest.raises(TypeError, match="words is one text; give a list of words"):
        read_vectors(path, words="film")
    with pytest.raises(ValueError, match="limit is 0"):
        read_vectors(path, limit=0)
    many = b"".join(b"%d 1 2 3 4 5 6 7\n" % i for i in range(999))
    with pytest.raises(ValueError, match=r"more than the 9,000 bytes allowed; ask for fewer with words= or limit="):
        read_vectors(written(tmp_path, many, True), max_bytes=9000)
    path.write_bytes(lines())
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "nothing"))):
        read_vectors(tmp_path / "nothing")
    with pytest.raises(ValueError, match="is a folder, not a file"):
        read_vectors(tmp_path)
    given = read_vectors(path)
    with pytest.raises(ValueError, match="'Film' has no vector in"):
        given.nearest("Film")
    with pytest.raises(ValueError, match=r"query has shape \(3,\); give a word, or a vector \(7,\)"):
        given.nearest(np.ones(3))
