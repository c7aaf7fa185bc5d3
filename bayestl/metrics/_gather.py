"""What metrics are made of, gathered batch by batch, and the metrics of resampled examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from bayestl._generator import generator
from bayestl._types import Batch, Data, Key, Targets
from bayestl.metrics._examples import Predictive, check_targets
from bayestl.metrics._metric import Metric
from bayestl.metrics._report import metrics_of
from bayestl.passes import Batches, batches

# So many numbers of examples times resamplings are worked on at once: 4 MB for each intermediate.
_AT_ONCE = 2**20


class Gathered(NamedTuple):
    """What the metrics of a data set are made of, on the host.

    Attributes:
        numbers: of each metric, what it keeps of every example, leaves (N, ...).
        weights: (N,), 0 for padding.
        metrics: those that apply.
        unknown_scores: of each score, one number per example, (N,).
    """

    numbers: list[Any]
    weights: np.ndarray
    metrics: tuple[Metric, ...]
    unknown_scores: dict[str, np.ndarray]


def gather(
    predict: Callable[[Any], Predictive],
    data: Data | Batch | Batches,
    batch_size: int,
    *,
    has_targets: bool,
    unknown_scores: Callable[[Any, Predictive], dict[str, Any]],
) -> Gathered:
    """One pass over a data set, a batch of predictions at a time.

    Args:
        predict: inputs to their predictive.
        data: a data set.
        batch_size: examples predicted at once.
        has_targets: False for examples whose targets mean nothing; no metric applies then.
        unknown_scores: of inputs and their predictive, (B,) each.
    """
    passes = batches(data, batch_size)
    chosen: tuple[Metric, ...] = ()
    parts = []
    for batch in passes:
        predictive = predict(batch.inputs)
        numbers: list[Any] = []
        if has_targets:
            chosen = chosen or metrics_of(predictive, batch.targets)
            check_targets(predictive, *passes.to_host((batch.targets, batch.weights)))
            numbers = _each(predictive, batch.targets, chosen)
        parts.append(passes.to_host((numbers, batch.weights, unknown_scores(batch.inputs, predictive))))
    numbers, weights, scores = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    return Gathered(numbers, weights, chosen, scores)


def values_and_errors(key: Key, gathered: Gathered, num_bootstrap: int) -> tuple[np.ndarray, np.ndarray]:
    """Every metric of the examples as they are, and its standard deviation over resampled ones; NaN without any.

    An example that was drawn twice has twice its weight. The resampled weights go through the metrics together, so that
    what does not depend on them, such as the order of the confidences, is found once.
    """
    real = np.flatnonzero(np.asarray(gathered.weights) > 0)
    total = 1 + num_bootstrap
    calls = -(-total * len(gathered.weights) // _AT_ONCE)
    size = -(-total // calls)
    counts = _counts(key, real, len(gathered.weights))
    values = []
    for _ in range(calls):
        drawn = np.stack([next(counts) for _ in range(size)]) * np.asarray(gathered.weights, np.float32)
        values.append(np.asarray(_summaries(gathered.numbers, drawn, gathered.metrics), np.float64))
    each = np.concatenate(values, 1)[:, :total]
    errors = np.full(len(each), np.nan)
    if num_bootstrap:
        errors = np.nanstd(each[:, 1:], axis=1, ddof=1)
    return each[:, 0], errors


def _counts(key: Key, real: np.ndarray, num: int) -> Iterator[np.ndarray]:
    """How often each of ``num`` examples is drawn, float32: first each once, then as many as there are at random."""
    rng = generator(key)
    counts = np.ones(num, np.float32)
    while True:
        yield counts
        counts = np.zeros(num, np.float32)
        # Padding is not drawn: it is no example.
        counts[real] = np.bincount(rng.integers(len(real), size=len(real)), minlength=len(real))


@partial(jax.jit, static_argnames="chosen")
def _each(predictive: Predictive, targets: Targets, chosen: tuple[Metric, ...]) -> list[Any]:
    return [metric.each(predictive, targets) for metric in chosen]


@partial(jax.jit, static_argnames="chosen")
def _summaries(numbers: list[Any], weights: Any, chosen: tuple[Metric, ...]) -> list[jax.Array]:
    """The metrics under each row of weights (R, N), (R,) each."""
    return [jax.vmap(metric.summary, (None, 0))(each, weights) for metric, each in zip(chosen, numbers, strict=True)]
