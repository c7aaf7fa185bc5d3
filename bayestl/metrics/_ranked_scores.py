"""Rows of a table that depend on the order of the examples, with standard errors by resampling them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bayestl._generator import generator
from bayestl._types import Key
from bayestl.metrics._answered import SUMMARIES, Ranked, answered, ranked
from bayestl.metrics._calibration import ECE
from bayestl.metrics._gather import Gathered
from bayestl.metrics._ranks import area, mean_precision, places, share_of_alarms
from bayestl.metrics._score_table import Score

_RANKS = {"auroc": area, "average_precision": mean_precision, "fpr_at_95": share_of_alarms}


def not_answering(key: Key, name: str, own: Gathered, num_bootstrap: int) -> list[Score]:
    """What is gained by not answering where the largest probability is small.

    Raises:
        TypeError: the targets are not one class per example.
        ValueError: weights that are no whole numbers.
    """
    confidence, is_wrong = _answers(name, own)
    weights = np.asarray(own.weights)
    if np.any(weights != np.round(weights)):
        raise ValueError(
            f"selective ranks examples, each of which counts a whole number of times, but the weights of {name!r} are "
            "not whole; leave selective out, or give weights such as 0, 1 and 2"
        )
    real = np.flatnonzero(weights > 0)
    examples = ranked(confidence[real], is_wrong[real])
    each = [_summaries(examples, weights[real] * counts) for (counts,) in _drawn(key, [len(real)], num_bootstrap)]
    return _with_errors(name, list(SUMMARIES), each)


def told_apart(
    key: Key, name: str, known: Gathered, unknown: Gathered, num_bootstrap: int, selective: bool
) -> list[Score]:
    """How well each score tells unknown examples; both kinds are resampled, each by itself.

    Raises:
        TypeError: ``selective``, and the targets of the known examples are not one class each.
    """
    real = [np.flatnonzero(np.asarray(each.weights) > 0) for each in (known, unknown)]
    is_wrong = np.concatenate([_answers(name, known)[1][real[0]], np.ones(len(real[1]))]) if selective else None
    scores = []
    for score in unknown.unknown_scores:
        place = places(known.unknown_scores[score][real[0]], unknown.unknown_scores[score][real[1]])
        # The highest scores, of place 0, are answered last.
        examples = None if is_wrong is None else ranked(np.concatenate(place).astype(float), is_wrong)
        each = [_numbers(place, examples, counts) for counts in _drawn(key, [len(r) for r in real], num_bootstrap)]
        names = [*_RANKS, *(SUMMARIES if selective else ())]
        scores += _with_errors(name, [f"{metric} of {score}" for metric in names], each)
    return scores


def _numbers(place: Sequence[np.ndarray], examples: Ranked | None, counts: Sequence[np.ndarray]) -> list[float]:
    """Of known and unknown examples that count so often each: how well they are told apart, then their answers."""
    num = 1 + max(each.max() for each in place)
    of_places = [np.bincount(each, count, num) for each, count in zip(place, counts, strict=True)]
    values = [function(*of_places) for function in _RANKS.values()]
    return values if examples is None else values + _summaries(examples, np.concatenate(counts))


def _answers(name: str, own: Gathered) -> tuple[np.ndarray, np.ndarray]:
    """The largest probability of every example, and 1 where the class that has it is wrong."""
    if ECE not in own.metrics:
        raise TypeError(
            f"selective is for targets of one class per example, as those of {name!r} are not; leave it out"
        )
    confidence, is_right = own.numbers[own.metrics.index(ECE)]
    return np.asarray(confidence, np.float64), 1.0 - np.asarray(is_right, np.float64)


def _summaries(examples: Ranked, counts: np.ndarray) -> list[float]:
    answers = answered(examples, counts)
    return [summary(answers) for summary in SUMMARIES.values()]


def _drawn(key: Key, sizes: Sequence[int], num: int) -> Iterator[list[np.ndarray]]:
    """How often each example of each kind is drawn: first each once, then ``num`` times as many as there are."""
    rng = generator(key)
    yield [np.ones(size) for size in sizes]
    for _ in range(num):
        yield [np.bincount(rng.integers(size, size=size), minlength=size) for size in sizes]


def _with_errors(dataset: str, names: Sequence[str], each: Sequence[Sequence[float]]) -> list[Score]:
    """The first row of numbers, and the standard deviation of the others; NaN where there are none."""
    values = np.array(each)
    errors = values[1:].std(0, ddof=1) if len(values) > 1 else np.full(len(names), np.nan)
    return list(map(Score, [dataset] * len(names), names, values[0].tolist(), errors.tolist()))
