"""Scores on several data sets as tables, and their mean over seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bayestl._arguments import check_arguments


class Score(NamedTuple):
    """One number of a table.

    Attributes:
        dataset: on which data set.
        metric: its name; for unknown examples with the score that is ranked, ``"auroc of predictive_entropy"``.
        value: the number.
        standard_error: over resampled examples; NaN where none were drawn.
    """

    dataset: str
    metric: str
    value: float
    standard_error: float


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """Scores on several data sets. Made by :func:`evaluate`; it prints as a table.

    Attributes:
        scores: one for each data set and metric, in order.
    """

    scores: tuple[Score, ...]

    def __getitem__(self, place: tuple[str, str]) -> Score:
        """``table[dataset, metric]``.

        Raises:
            KeyError: no such score.
        """
        for score in self.scores:
            if (score.dataset, score.metric) == place:
                return score
        datasets = list(dict.fromkeys(score.dataset for score in self.scores))
        raise KeyError(f"no score {place}; there are data sets {datasets}")

    def to_markdown(self, digits: int = 3) -> str:
        """Tables for Markdown, one line per data set; data sets with other metrics have a table of their own."""
        return "\n\n".join(markdown(*block) for block in self._blocks(digits, " ± "))

    def to_latex(self, digits: int = 3) -> str:
        """As :meth:`to_markdown`, each a ``tabular`` with the rules of booktabs."""
        return "\n\n".join(latex(*block) for block in self._blocks(digits, r" $\pm$ ", escaped))

    def to_dataframe(self) -> Any:
        """A pandas ``DataFrame`` with the columns of :class:`Score`.

        Raises:
            ImportError: pandas is not installed.
        """
        return dataframe(self.scores, Score._fields)

    def _blocks(
        self, digits: int, between: str, text: Callable[[str], str] = str
    ) -> list[tuple[list[str], list[list[str]]]]:
        """Heads and lines of cells, of all data sets with the same metrics; unknown ones have a line per score."""
        lines_of: dict[tuple[str, str], list[Score]] = {}
        for score in self.scores:
            metric, _, ranked = score.metric.partition(" of ")
            lines_of.setdefault((score.dataset, ranked), []).append(score._replace(metric=metric))
        blocks: dict[tuple[str, ...], list[list[str]]] = {}
        for (name, ranked), own in lines_of.items():
            cells = [number(score.value, score.standard_error, digits, between) for score in own]
            line = [text(name), *([text(ranked)] if ranked else []), *cells]
            heads = ("data set", *(["score"] if ranked else []), *(text(score.metric) for score in own))
            blocks.setdefault(heads, []).append(line)
        return [(list(heads), lines) for heads, lines in blocks.items()]

    def __str__(self) -> str:
        return self.to_markdown()


def number(value: float, error: float, digits: int, between: str, sign: str = "") -> str:
    """A number with its standard error, where it has one."""
    return f"{value:{sign}.{digits}f}" + ("" if math.isnan(error) else f"{between}{error:.{digits}f}")


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table for Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *lines])


def latex(heads: Sequence[str], lines: Sequence[Sequence[str]], columns: str | None = None) -> str:
    """A ``tabular`` with the rules of booktabs, of cells that LaTeX can read."""
    rows = [" & ".join(row) + r" \\" for row in [heads, *lines]]
    begin = rf"\begin{{tabular}}{{{columns or 'l' + 'r' * (len(heads) - 1)}}}"
    return "\n".join([begin, r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}"])


def escaped(text: str) -> str:
    """A text with the letters that mean something to LaTeX written out."""
    return "".join(_WRITTEN_OUT.get(letter, letter) for letter in text)


_WRITTEN_OUT = {
    **{letter: "\\" + letter for letter in "_%&#${}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def dataframe(rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> Any:
    """A pandas ``DataFrame``.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas; install it with: pip install pandas") from error
    return pandas.DataFrame(list(rows), columns=list(columns))


def values_of(tables: Sequence[ScoreTable]) -> np.ndarray:
    """The numbers of tables of the same scores, (tables, scores)."""
    return np.array([[score.value for score in table.scores] for table in tables])


def across_seeds(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Mean and standard error over the tables of several seeds, score by score.

    Args:
        tables: of the same data sets and metrics, at least two.

    Raises:
        ValueError: fewer than two tables, or tables of different scores.

    Example:
        >>> one, two = (btl.metrics.ScoreTable((btl.metrics.Score("test", "nll", value, 0.1),)) for value in (1.0, 2.0))
        >>> btl.metrics.across_seeds([one, two])["test", "nll"]
        Score(dataset='test', metric='nll', value=1.5, standard_error=0.5)
    """
    check_arguments(across_seeds, locals())
    if not all(isinstance(table, ScoreTable) for table in tables):
        raise TypeError("tables holds something else than tables; give a list of what metrics.evaluate returns")
    places = [[(score.dataset, score.metric) for score in table.scores] for table in tables]
    if len(tables) < 2 or any(each != places[0] for each in places):
        raise ValueError(f"across_seeds was given {len(tables)} tables; give at least two, all of the same scores")
    values = values_of(tables)
    errors = values.std(0, ddof=1) / np.sqrt(len(values))
    return ScoreTable(
        tuple(Score(*place, float(v), float(e)) for place, v, e in zip(places[0], values.mean(0), errors, strict=True))
    )
