"""Which method is better, over seeds, on every data set and by every metric of a table."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr

from bayestl._arguments import check_arguments
from bayestl._types import Scalar
from bayestl.metrics._numbers import probability
from bayestl.metrics._score_table import ScoreTable, dataframe, escaped, latex, markdown, number, values_of

BETTER, UNCLEAR, WORSE = "better", "no clear difference", "worse"
_FEWEST = 5
_LARGER_IS_BETTER = {
    **dict.fromkeys(("accuracy", "macro_accuracy", "auroc", "average_precision", "coverage_at_risk"), True),
    **dict.fromkeys(("nll", "brier", "ece", "ece_equal_mass", "rmse", "crps", "fpr_at_95"), False),
    **dict.fromkeys(("aurc", "excess_aurc", "augrc", "risk_at_coverage"), False),
}
# The right coverage is its level, neither the largest nor the smallest.
_WITHOUT_DIRECTION = ("interval_coverage",)


class Difference(NamedTuple):
    """One method against the baseline, by one metric on one data set.

    Attributes:
        method: the method.
        dataset: on which data set.
        metric: by which metric, in whose units the numbers are.
        difference: mean over seeds of the method's score less the baseline's.
        standard_error: of this mean.
        p_value: of Student's t test for paired samples, two-sided.
        corrected: the p value corrected for all comparisons of the table.
        verdict: of the method: "better", "worse" or "no clear difference".
    """

    method: str
    dataset: str
    metric: str
    difference: float
    standard_error: float
    p_value: float
    corrected: float
    verdict: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods against a baseline, seed by seed. Made by :func:`compare`; it prints as a table.

    Attributes:
        differences: one for each method, data set and metric, in order.
        baseline: what all are compared with.
        num_seeds: how many pairs each difference is the mean of.
        level: of the verdicts.
    """

    differences: tuple[Difference, ...]
    baseline: str
    num_seeds: int
    level: float

    def __getitem__(self, place: tuple[str, str, str]) -> Difference:
        """``comparison[method, dataset, metric]``.

        Raises:
            KeyError: no such difference.
        """
        for each in self.differences:
            if each[:3] == place:
                return each
        raise KeyError(f"no difference {place}; there are methods {sorted({each.method for each in self.differences})}")

    def to_markdown(self, digits: int = 3) -> str:
        """A table for Markdown, one line per method, data set and metric."""
        return markdown(*self._block(digits, " ± "))

    def to_latex(self, digits: int = 3) -> str:
        """As :meth:`to_markdown`, a ``tabular`` with the rules of booktabs."""
        return latex(*self._block(digits, r" $\pm$ ", escaped), columns="lllrrl")

    def to_dataframe(self) -> Any:
        """A pandas ``DataFrame`` with the columns of :class:`Difference`.

        Raises:
            ImportError: pandas is not installed.
        """
        return dataframe(self.differences, Difference._fields)

    def _block(self, digits: int, between: str, text: Callable[[str], str] = str) -> tuple[list[str], list[list[str]]]:
        heads = ["method", "data set", "metric", f"less {self.baseline}", "corrected p", "verdict"]
        lines = [
            [
                *map(text, each[:3]),
                number(each.difference, each.standard_error, digits, between, sign="+"),
                f"{each.corrected:.2g}",
                each.verdict,
            ]
            for each in self.differences
        ]
        return list(map(text, heads)), lines

    def __str__(self) -> str:
        return self.to_markdown()


def compare(
    tables: Mapping[str, Sequence[ScoreTable]],
    *,
    baseline: str,
    metrics: Sequence[str] | None = None,
    larger_is_better: Mapping[str, bool] | None = None,
    level: Scalar = 0.95,
) -> Comparison:
    """Whether methods are better than a baseline: differences paired by seed, tested, and corrected for their number.

    The scores of one seed, with its data and its start, rise and fall together, so differences say more than means.
    Each is held against 0 by Student's t test, with one degree of freedom less than there are seeds. A table of many
    differences holds some that look sure by chance: p values are corrected by Holm's method, so that with probability
    ``level`` no verdict of the whole table says "better" or "worse" where there is no difference. Choose ``metrics``
    before looking at the numbers, and the correction asks for less.

    Differences over seeds know of other seeds, and nothing of other test examples.

    Args:
        tables: method to its tables, one per seed, in the same order of seeds for all; at least 2, and better 5.
        baseline: the method that all others are compared with.
        metrics: those to compare by, with or without the score that is ranked (``"auroc"`` for all scores, or
            ``"auroc of predictive_entropy"``); None for all but ``interval_coverage``, of which neither more nor less
            is better.
        larger_is_better: for metrics of your own, whether more is better.
        level: of the verdicts.

    Raises:
        ValueError: a baseline that is not there, nothing to compare it with, other numbers of tables, tables of other
            scores, scores that are not finite, a metric that is not there or of which it is not known what is better.

    Warns:
        RuntimeWarning: fewer than 5 seeds, which show large differences alone.

    References:
        Holm, A simple sequentially rejective multiple test procedure, 1979.

    Example:
        >>> def tables(*values):
        ...     return [btl.metrics.ScoreTable((btl.metrics.Score("test", "nll", value, 0.1),)) for value in values]
        >>> runs = {"scratch": tables(1.0, 1.2, 1.1, 1.4, 1.3), "transfer": tables(0.7, 0.8, 0.8, 1.0, 1.0)}
        >>> print(btl.metrics.compare(runs, baseline="scratch"))
        | method | data set | metric | less scratch | corrected p | verdict |
        | --- | --- | --- | --- | --- | --- |
        | transfer | test | nll | -0.340 ± 0.024 | 0.00016 | better |
    """
    check_arguments(compare, locals())
    probability("level", level)
    values = _values(tables, baseline)
    num = len(values[baseline])
    places = _places(tables[baseline][0], metrics, larger_is_better or {})
    if num < _FEWEST:
        warnings.warn(
            f"{num} seeds show large differences alone; compare at least {_FEWEST}", RuntimeWarning, stacklevel=2
        )
    methods = [method for method in tables if method != baseline]
    columns = [place.column for place in places]
    names = [(method, place.dataset, place.metric) for method in methods for place in places]
    differences = np.concatenate([(values[method] - values[baseline])[:, columns] for method in methods], axis=1)
    for name, each in zip(names, differences.T, strict=True):
        if not np.isfinite(each).all():
            raise ValueError(f"scores of {name}, or of the baseline, are not finite; choose other metrics")
    mean, spread = differences.mean(0), differences.std(0, ddof=1)
    # Equal differences can differ by rounding, which is no spread.
    error = np.where(spread <= 1e-12 * np.abs(mean), 0.0, spread / np.sqrt(num))
    # Differences that are all 0 show nothing; to others that are all equal, any t is as good as infinite.
    t = np.divide(np.abs(mean), error, out=np.where(mean == 0, 0.0, np.inf), where=error > 0)
    p_values = 2 * stdtr(num - 1, -t)
    corrected = holm(p_values)
    is_better = (mean > 0) == np.array([place.larger_is_better for place in places] * len(methods))
    verdicts = np.where(corrected > 1 - float(level), UNCLEAR, np.where(is_better, BETTER, WORSE))
    numbers = (column.tolist() for column in (mean, error, p_values, corrected, verdicts))
    rows = tuple(Difference(*name, *each) for name, *each in zip(names, *numbers, strict=True))
    return Comparison(rows, baseline, num, float(level))


def holm(p_values: np.ndarray) -> np.ndarray:
    """p values corrected for their number M: the k-th smallest times M - k + 1, never below one that was smaller."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return corrected


def _values(tables: Mapping[str, Sequence[ScoreTable]], baseline: str) -> dict[str, np.ndarray]:
    """Scores of each method, (seeds, scores)."""
    if baseline not in tables or len(tables) < 2:
        raise ValueError(f"tables holds {list(tables)}; give the baseline, {baseline!r}, and a method to compare")
    for method, own in tables.items():
        if not all(isinstance(table, ScoreTable) for table in own):
            raise TypeError(f"tables[{method!r}] must be a list of what metrics.evaluate returns, one per seed")
    numbers = {method: len(own) for method, own in tables.items()}
    if len(set(numbers.values())) > 1 or numbers[baseline] < 2:
        raise ValueError(f"tables holds {numbers} seeds; give at least 2, and as many for each method")
    places = [score[:2] for score in tables[baseline][0].scores]
    for method, own in tables.items():
        if any([score[:2] for score in table.scores] != places for table in own):
            raise ValueError(f"tables[{method!r}] has other scores than those of {baseline!r}; give the same")
    return {method: values_of(own) for method, own in tables.items()}


class _Place(NamedTuple):
    """A column of the scores, what it holds, and which direction is better."""

    column: int
    dataset: str
    metric: str
    larger_is_better: bool


def _places(table: ScoreTable, metrics: Sequence[str] | None, further: Mapping[str, bool]) -> list[_Place]:
    """The scores to compare by."""
    directions = {**_LARGER_IS_BETTER, **further}
    places, known = [], set()
    for column, score in enumerate(table.scores):
        # With the score that is ranked, and without.
        names = (score.metric, score.metric.split(" of ")[0])
        known |= set(names)
        larger = next((directions[name] for name in names if name in directions), None)
        if metrics is None:
            is_compared = larger is not None or score.metric not in _WITHOUT_DIRECTION
        else:
            is_compared = not set(names).isdisjoint(metrics)
        if is_compared and larger is None:
            raise ValueError(f"is more {score.metric} better? Say so: larger_is_better={{{score.metric!r}: True}}")
        if is_compared:
            places.append(_Place(column, score.dataset, score.metric, bool(larger)))
    absent = [metric for metric in metrics or () if metric not in known]
    if absent or not places:
        raise ValueError(f"metrics {absent or 'to compare by'} are not in the tables; these have {sorted(known)}")
    return places
