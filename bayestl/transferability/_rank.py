"""Several sources for one target, scored and put in order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.transferability._checks import checked_features, is_classes
from bayestl.transferability._from_probabilities import leep, nce
from bayestl.transferability._h_score import h_score
from bayestl.transferability._last_layer import LastLayer, last_layer, one_of_each
from bayestl.transferability._log_me import log_me
from bayestl.transferability._trans_rate import trans_rate


@dataclasses.dataclass
class Source:
    """What a source says of the target's training inputs, for :func:`rank_sources`.

    Attributes:
        features: what its last layer would see, (N, D).
        probabilities: of its own classes, (N, K); None where it has none, and scores that need them are left out.
        outputs: its raw outputs, (N, C), where its head is of the target's classes; None otherwise. Then a last layer
            around its own is tried beside one around zero.
    """

    features: Any
    probabilities: Any = None
    outputs: Any = None
    _last_layer: tuple[Any, LastLayer] | None = dataclasses.field(default=None, init=False, repr=False)

    def last_layer(self, targets: Any) -> LastLayer:
        """:func:`last_layer` on its features, computed once; around its own head where that does better."""
        if self._last_layer is None or self._last_layer[0] is not targets:
            fitted = last_layer(self.features, targets)
            if self.outputs is not None:
                own = last_layer(self.features, targets, outputs=self.outputs)
                fitted = max(fitted, own, key=lambda each: each.held_out)
            self._last_layer = (targets, fitted)
        return self._last_layer[1]

    def rows(self, rows: np.ndarray) -> Source:
        """The same of some of the examples."""
        parts = (self.features, self.probabilities, self.outputs)
        return Source(*(None if part is None else np.asarray(part)[rows] for part in parts))


Score = Callable[[Source, Any], float]
"""``(source, targets) -> number``, larger for better sources; NaN where it does not apply."""


def _of_features(function: Callable[[Any, Any], float]) -> Score:
    return lambda source, targets: function(source.features, targets) if is_classes(targets) else math.nan


def _of_probabilities(function: Callable[[Any, Any], float]) -> Score:
    def score(source: Source, targets: Any) -> float:
        has_classes = source.probabilities is not None and is_classes(targets)
        return function(source.probabilities, targets) if has_classes else math.nan

    return score


SCORES: Mapping[str, Score] = {
    "held-out": lambda source, targets: source.last_layer(targets).held_out,
    "evidence": lambda source, targets: source.last_layer(targets).evidence,
    "LogME": lambda source, targets: log_me(source.features, targets),
    "LEEP": _of_probabilities(leep),
    "NCE": _of_probabilities(nce),
    "H-score": _of_features(h_score),
    "TransRate": _of_features(trans_rate),
}
"""All scores of this room by name; the first is what sources are ordered by."""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Sources in order; printed, a table with the best in the first line.

    Attributes:
        names: of the sources, best first by the first score.
        scores: score to its values, in the order of ``names``; NaN where it does not apply.
        num_examples: how many of the target's examples were looked at.
    """

    names: tuple[str, ...]
    scores: dict[str, np.ndarray]
    num_examples: int

    @property
    def best(self) -> str:
        """The first of ``names``."""
        return self.names[0]

    def order(self, score: str) -> tuple[str, ...]:
        """The names, best first by another score; those to which it does not apply are left out."""
        values = self.scores[score]
        applies = [i for i in np.argsort(-values, kind="stable") if not np.isnan(values[i])]
        return tuple(self.names[i] for i in applies)

    def __str__(self) -> str:
        width = max(len("source"), *map(len, self.names))
        widths = {name: max(len(name), 8) for name in self.scores}
        lines = ["  ".join([f"{'source':<{width}}", *(f"{name:>{widths[name]}}" for name in self.scores)])]
        for i, source in enumerate(self.names):
            cells = [
                f"{'-' if math.isnan(values[i]) else format(values[i], '.3f'):>{widths[name]}}"
                for name, values in self.scores.items()
            ]
            lines.append("  ".join([f"{source:<{width}}", *cells]))
        return "\n".join(lines)

    __repr__ = __str__


def rank_sources(
    sources: Mapping[str, Source | Any],
    targets: Numbers,
    *,
    scores: Mapping[str, Score] = SCORES,
    most: int = 500,
) -> Ranking:
    """Which source to take: several of them scored on the target's training data, best first.

    Args:
        sources: name to :class:`Source`, or to features (N, D) alone. All of the same N training examples.
        targets: classes, whole numbers (N,); or numbers, (N,) or (N, M).
        scores: name to function; by default all of this room. Sources are ordered by the first.
        most: examples that are looked at. Of more, this many are taken, evenly from every class.

    Returns:
        A :class:`Ranking`; ``plots.ranking`` draws it.

    Raises:
        ValueError: no source, sources of different numbers of examples, whatever the scores raise, with the source's
            name.

    Example:
        >>> labels = np.tile([0, 1], 10)
        >>> sees = np.random.default_rng(0).normal(size=(20, 3)) + 3 * labels[:, None]
        >>> blind = np.random.default_rng(1).normal(size=(20, 3))
        >>> print(btl.transferability.rank_sources({"blind": blind, "sees": sees}, labels).best)
        sees
    """
    check_arguments(rank_sources, locals())
    if not sources or not scores:
        raise ValueError("rank_sources needs at least one source and one score")
    if most < 2:
        raise ValueError(f"most is {most}; at least 2 examples are needed")
    taken = {name: source if isinstance(source, Source) else Source(source) for name, source in sources.items()}
    targets = np.asarray(targets)
    if targets.ndim == 0:
        raise ValueError(f"targets are the single number {targets}; give one per training example, (N,) or (N, M)")
    for name, source in taken.items():
        try:
            num = len(checked_features(source.features))
        except ValueError as error:
            raise ValueError(f"source {name!r}: {error}") from error
        if num != len(targets):
            raise ValueError(
                f"source {name!r} has features of {num} examples, and there are targets of {len(targets)}; give those "
                "of the target's training inputs, in order"
            )
    rows = _evenly(targets, most)
    targets = targets[rows]
    values = {name: _score_all(name, source.rows(rows), targets, scores) for name, source in taken.items()}
    first = np.array([values[name][0] for name in values])
    names = tuple(list(values)[i] for i in np.argsort(-first, kind="stable"))
    columns = {score: np.array([values[name][k] for name in names]) for k, score in enumerate(scores)}
    return Ranking(names, columns, len(rows))


def _score_all(name: str, source: Source, targets: np.ndarray, scores: Mapping[str, Score]) -> list[float]:
    try:
        return [float(score(source, targets)) for score in scores.values()]
    except ValueError as error:
        raise ValueError(f"source {name!r}: {error}") from error


def _evenly(targets: np.ndarray, most: int) -> np.ndarray:
    """Rows of at most ``most`` examples, in order: of classes one of each in turn, of numbers evenly spaced."""
    if len(targets) <= most:
        return np.arange(len(targets))
    if not is_classes(targets):
        return np.linspace(0, len(targets) - 1, most).round().astype(int)
    in_turn = np.concatenate(one_of_each(np.unique(targets, return_inverse=True)[1]))
    return np.sort(in_turn[:most])
