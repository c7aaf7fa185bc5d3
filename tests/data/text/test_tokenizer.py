"""Tokenizers from their files; the ids of a published one are stated in the data directory's README."""

from __future__ import annotations

import pytest

from bayestl.data import text


def test_other_files_are_refused(tmp_path):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer\.json of the library"):
        text.tokenizer(path)


def test_a_published_tokenizer(data_dir):
    pytest.importorskip("tokenizers")
    tokenizer = text.tokenizer(data_dir / "minilm" / "tokenizer.json")
    assert (len(tokenizer), tokenizer.padding, tokenizer.unknown, tokenizer.num_special) == (30_522, 0, 100, 2)
    texts = ["A quick test sentence.", "the film is a triumph of wit over plot", "", "a \U0001f984"]
    encoded = text.encode(texts, tokenizer)
    assert encoded.tokens.shape == (4, 11)
    assert encoded.tokens[0].tolist() == [101, 1037, 4248, 3231, 6251, 1012, 102, 0, 0, 0, 0]
    assert encoded.tokens[2].tolist() == [101, 102] + 9 * [0]
    assert encoded.report.empty.tolist() == [2]
    assert encoded.report.cut.size == 0
    assert encoded.report.coverage.unknown == (("\U0001f984", 1),)
    cut = text.encode(texts, tokenizer, length=6)
    # A text that is cut keeps the mark of its end.
    assert cut.tokens[0].tolist() == [101, 1037, 4248, 3231, 6251, 102]
    assert cut.report.cut.tolist() == [0, 1]
    assert cut.report.longest == 9
    with pytest.raises(ValueError, match="length is 2, and 2 numbers mark beginning and end"):
        text.encode(texts, tokenizer, length=2)
    assert tokenizer.split("A quick test.") == ["a", "quick", "test", "."]
    vocab = text.vocabulary(texts, split=tokenizer.split)
    assert vocab.rows["triumph"] > 1
