"""Everything about a predictive function on several data sets, with standard errors, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Batch, Data, Key
from bayestl.metrics._bootstrap import bootstrap
from bayestl.metrics._evaluate import Gathered, gather, summaries
from bayestl.metrics._examples import Predictive
from bayestl.metrics._ranks import auroc, average_precision, false_positive_rate
from bayestl.passes import Batches

_RANKS = {"auroc": auroc, "average_precision": average_precision, "fpr_at_95": false_positive_rate}


class Score(NamedTuple):
    """One number of a table.

    Attributes:
        dataset: on which data set.
        metric: its name; for examples from elsewhere with the score that is ranked, ``"auroc of predictive_entropy"``.
        value: the number.
        standard_error: over resampled examples.
    """

    dataset: str
    metric: str
    value: float
    standard_error: float


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """Scores on several data sets. Made by :func:`tabulate`; it prints as a table.

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
        tables = []
        for heads, lines in self._blocks(digits, " ± "):
            rows = [["data set", *heads], ["---"] * (len(heads) + 1), *lines]
            tables.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
        return "\n\n".join(tables)

    def to_latex(self, digits: int = 3) -> str:
        """As :meth:`to_markdown`, each a ``tabular`` with the rules of booktabs."""
        tables = []
        for heads, lines in self._blocks(digits, r" $\pm$ "):
            rows = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in [["data set", *heads], *lines]]
            begin, end = rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\end{tabular}"
            tables.append("\n".join([begin, r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", end]))
        return "\n\n".join(tables)

    def to_dataframe(self) -> Any:
        """A pandas ``DataFrame`` with the columns of :class:`Score`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe needs pandas; pip install pandas") from error
        return pandas.DataFrame(list(self.scores), columns=list(Score._fields))

    def _blocks(self, digits: int, between: str) -> list[tuple[list[str], list[list[str]]]]:
        """Metrics, and lines of cells, of all data sets that have the same metrics."""
        by_dataset: dict[str, list[Score]] = {}
        for score in self.scores:
            by_dataset.setdefault(score.dataset, []).append(score)
        blocks: dict[tuple[str, ...], list[list[str]]] = {}
        for name, own in by_dataset.items():
            cells = [f"{score.value:.{digits}f}{between}{score.standard_error:.{digits}f}" for score in own]
            blocks.setdefault(tuple(score.metric for score in own), []).append([name, *cells])
        return [(list(heads), lines) for heads, lines in blocks.items()]

    def __str__(self) -> str:
        return self.to_markdown()


def tabulate(
    key: Key,
    predict: Callable[[Any], Predictive],
    datasets: Mapping[str, Data | Batch | Batches],
    *,
    batch_size: int = 256,
    num_bootstrap: int = 200,
) -> ScoreTable:
    """All metrics that apply, on several data sets, each with a standard error by bootstrap over the examples.

    A data set whose name begins with ``ood/`` holds examples from elsewhere, whose targets mean nothing: its numbers
    say how well scores of the predictive tell them from the examples of the first data set (the largest probability,
    the predictive entropy, and, where there are draws, the mutual information). All others are scored by
    :func:`evaluate`. One pass over each, with what is resampled gathered on the host.

    Args:
        key: of the resampling.
        predict: inputs to their predictive.
        datasets: name to data, ``{"test": ..., "shift/noise": ..., "ood/letters": ...}``; the first is the one that
            examples from elsewhere are told from.
        batch_size: examples predicted at once.
        num_bootstrap: how often to resample.

    Raises:
        ValueError: no data set, a first one from elsewhere, fewer than 2 resamplings; whatever :func:`evaluate` raises.
        TypeError: examples from elsewhere for a predictive that is not of classes.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (2, 3))
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), None)
        >>> predict = btl.predict.monte_carlo(jax.random.key(1), joint, btl.Point(net.params))
        >>> test = btl.data.arrays(jax.random.normal(jax.random.key(2), (50, 2)), jnp.arange(50) % 3)
        >>> far = btl.data.arrays(9 + jax.random.normal(jax.random.key(3), (40, 2)), jnp.zeros(40, int))
        >>> table = btl.metrics.tabulate(jax.random.key(4), predict, {"test": test, "ood/far": far}, num_bootstrap=20)
        >>> [score.metric for score in table.scores if score.dataset == "ood/far"][:2]
        ['auroc of largest_probability', 'average_precision of largest_probability']
    """
    check_arguments(tabulate, locals())
    names = list(datasets)
    if not names or _is_elsewhere(names[0]):
        raise ValueError(f"datasets are {names}; give at least one, and first the one that examples are told from")
    if num_bootstrap < 2:
        raise ValueError(f"num_bootstrap is {num_bootstrap}; it must be at least 2")
    wants_scores = any(map(_is_elsewhere, names))
    scores: list[Score] = []
    inside: dict[str, np.ndarray] = {}
    for number, (name, data) in enumerate(datasets.items()):
        own = jax.random.fold_in(key, number)
        also = _unlike if wants_scores and (number == 0 or _is_elsewhere(name)) else _nothing
        gathered = gather(predict, data, batch_size, has_targets=not _is_elsewhere(name), also=also)
        real = np.asarray(gathered.weights) > 0
        if number == 0:
            inside = {score: np.asarray(each)[real] for score, each in gathered.further.items()}
        if _is_elsewhere(name):
            outside = {score: np.asarray(each)[real] for score, each in gathered.further.items()}
            scores += _told_apart(own, name, inside, outside, num_bootstrap)
        else:
            scores += _scored(own, name, gathered, num_bootstrap)
    return ScoreTable(tuple(scores))


def _scored(key: Key, name: str, gathered: Gathered, num_bootstrap: int) -> list[Score]:
    values = summaries(gathered.numbers, gathered.weights, gathered.metrics)
    keys = jax.random.split(key, num_bootstrap)
    draws = _resampled(gathered.numbers, jnp.asarray(gathered.weights, float), keys, gathered.metrics)
    errors = [float(np.nanstd(np.asarray(each, np.float64), ddof=1)) for each in draws]
    return [
        Score(name, metric.name, float(value), error)
        for metric, value, error in zip(gathered.metrics, values, errors, strict=True)
    ]


@partial(jax.jit, static_argnames="metrics")
def _resampled(numbers: list[Any], weights: jax.Array, keys: Key, metrics: tuple[Any, ...]) -> list[jax.Array]:
    """Every metric on resampled examples, (R,) each: an example that was drawn twice has twice its weight."""
    num = len(weights)
    # Padding is not drawn: it is no example.
    logits = jnp.where(weights > 0, 0.0, -jnp.inf)

    def one(key: Key) -> list[jax.Array]:
        real = jnp.sum(weights > 0)
        rows = jax.random.categorical(key, logits, shape=(num,))
        counts = jnp.zeros(num).at[rows].add(jnp.where(jnp.arange(num) < real, 1.0, 0.0))
        return [metric.summary(each, counts * weights) for metric, each in zip(metrics, numbers, strict=True)]

    return jax.lax.map(one, keys)


def _told_apart(
    key: Key, name: str, inside: Mapping[str, np.ndarray], outside: Mapping[str, np.ndarray], num_bootstrap: int
) -> list[Score]:
    scores = []
    for score, values in outside.items():
        for metric, function in _RANKS.items():
            made = bootstrap(key, function, inside[score], values, num_bootstrap=num_bootstrap)
            scores.append(Score(name, f"{metric} of {score}", made.value, made.standard_error))
    return scores


def _is_elsewhere(name: str) -> bool:
    return name.startswith("ood/")


def _nothing(predictive: Predictive) -> dict[str, jax.Array]:
    return {}


def _unlike(predictive: Any) -> dict[str, jax.Array]:
    """Scores that are high for examples unlike the task's, (B,) each."""
    if not predictive.is_classification:
        raise TypeError("examples from elsewhere (ood/...) can be told apart by the probabilities of classes alone")
    probs = predictive.probs
    largest = jnp.maximum(probs, 1 - probs) if probs.ndim == 1 else jnp.max(probs, -1)
    scores = {"largest_probability": 1 - largest, "predictive_entropy": predictive.predictive_entropy()}
    if len(predictive.log_weights) > 1:
        scores["mutual_information"] = predictive.mutual_information()
    return scores


def _escaped(cell: str) -> str:
    return cell.replace("_", r"\_").replace("%", r"\%")


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
        raise TypeError("tables holds something else than tables; give a list of what metrics.tabulate returns")
    places = [[(score.dataset, score.metric) for score in table.scores] for table in tables]
    if len(tables) < 2 or any(each != places[0] for each in places):
        raise ValueError(f"across_seeds was given {len(tables)} tables; give at least two, all of the same scores")
    values = np.array([[score.value for score in table.scores] for table in tables])
    errors = values.std(0, ddof=1) / np.sqrt(len(values))
    return ScoreTable(
        tuple(Score(*place, float(v), float(e)) for place, v, e in zip(places[0], values.mean(0), errors, strict=True))
    )
