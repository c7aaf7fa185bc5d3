"""Texts: labelled files, words, vocabularies, tokenizers, and rows of numbers of one length."""

from bayestl.data.text._coverage import Coverage, coverage
from bayestl.data.text._encode import Encoded, EncodingReport, encode
from bayestl.data.text._labelled import Labelled, from_records, read_labelled
from bayestl.data.text._split import split_words
from bayestl.data.text._tokenizer import Tokenizer, tokenizer
from bayestl.data.text._vocabulary import Vocabulary, vocabulary

__all__ = [
    "Coverage",
    "Encoded",
    "EncodingReport",
    "Labelled",
    "Tokenizer",
    "Vocabulary",
    "coverage",
    "encode",
    "from_records",
    "read_labelled",
    "split_words",
    "tokenizer",
    "vocabulary",
]
