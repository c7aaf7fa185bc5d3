"""The labelled sentences of the task, as rows of numbers, and their fixed split."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import bayestl as btl
from benchmarks.tasks.sentiment_config import ENCODING, LENGTH, MIN_COUNT, SPLIT_SEED, TEST, VALIDATION


class Sentences(NamedTuple):
    """A labelled set as rows of numbers.

    Attributes:
        name: of the set.
        vocab: of its words; no label is looked at.
        data: tokens (N, L) and labels.
        num_classes: how many labels there are.
    """

    name: str
    vocab: btl.data.text.Vocabulary
    data: Any
    num_classes: int


def sentences(name: str, path: Path, num_classes: int, extra: tuple[str, ...] = ()) -> Sentences:
    """A labelled file as rows of numbers."""
    labelled = btl.data.text.read_labelled(path, encoding=ENCODING)
    vocab = btl.data.text.vocabulary(labelled.texts, min_count=MIN_COUNT, extra=extra)
    tokens = btl.data.text.encode(labelled.texts, vocab, LENGTH).tokens
    return Sentences(name, vocab, btl.data.arrays(jnp.asarray(tokens), jnp.asarray(labelled.labels)), num_classes)


class Split(NamedTuple):
    """Places of a target's sentences: 1000 for the test, 200 for choices, the others to draw labels from."""

    pool: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(num_examples: int) -> Split:
    """The fixed split of a target of so many sentences."""
    order = np.random.default_rng(SPLIT_SEED).permutation(num_examples)
    return Split(order[TEST + VALIDATION :], order[TEST : TEST + VALIDATION], order[:TEST])


def training_places(num_examples: int, num: int, seed: int) -> np.ndarray:
    """Places of the labelled sentences of one seed."""
    return np.random.default_rng(seed).permutation(split(num_examples).pool)[:num]


def training_set(target: Sentences, num: int, seed: int) -> Any:
    """The labelled sentences of one seed."""
    return target.data.take(training_places(target.data.num_examples, num, seed))
