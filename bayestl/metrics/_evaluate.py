"""Everything about a predictive function on one data set or several, with standard errors, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Batch, Data, Key
from bayestl.metrics._examples import Predictive
from bayestl.metrics._gather import gather, values_and_errors
from bayestl.metrics._ranked_scores import not_answering, told_apart
from bayestl.metrics._score_table import Score, ScoreTable
from bayestl.passes import Batches


def evaluate(
    key: Key,
    predict: Callable[[Any], Predictive],
    data: Mapping[str, Data | Batch | Batches] | Data | Batch | Batches,
    *,
    unknown_scores: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    selective: bool = False,
    batch_size: int = 256,
    num_bootstrap: int = 200,
) -> ScoreTable:
    """The metrics of :func:`report` over one data set or several, each with a standard error by bootstrap.

    The same numbers, up to rounding, as ``report(predict(inputs), targets, weights)`` on all the data at once; but the
    outputs of S draws, S x B x C numbers, are held for one batch alone. Of every example a few numbers are kept on the
    host: its log probability, its confidence, whether the answer was right. So calibration, whose bins are those of all
    examples, is exact as well, and resampled examples need no further pass.

    A data set whose name begins with ``ood/`` holds unknown examples, from elsewhere, whose targets mean nothing: its
    numbers say how well scores of the predictive tell them from the known examples of ``"test"``, or of the first data
    set where none has this name.

    ``predict`` is called once per batch, and every batch has the same shape. A predictive function that draws as many
    random numbers as there are inputs (``link=predict.sampled(key, num_samples)``) draws others for a batch than for
    all the data, and its report then differs by the noise of its draws.

    Args:
        key: of the resampling.
        predict: inputs to their predictive: what ``predict.monte_carlo``, ``predict.monte_carlo_average``,
            ``predict.linearized`` or ``predict.mc_dropout`` give, or any function that gives such a predictive.
        data: a data set, which the table calls ``"test"``, or name to data set, ``{"test": ..., "shift/noise": ...,
            "ood/letters": ...}``. Each is a data set, in memory or read from storage; one :class:`~bayestl.Batch`,
            whose weights count; or ``passes.batches(data, batch_size, sharding=...)`` for a mesh.
        unknown_scores: name to ``(inputs, their predictive) -> (B,)``, higher for examples unlike the task's. None for
            ``largest_probability`` (1 less it), ``predictive_entropy``, and, where there are draws,
            ``mutual_information``.
        selective: of classes, what is gained by not answering too: ``aurc``, ``excess_aurc``, ``augrc``,
            ``coverage_at_risk`` (0.05) and ``risk_at_coverage`` (0.8), answers being in the order of the largest
            probability. In the rows of unknown examples these are mixed with all known ones, every answer to them is an
            error, and answers are in the order of each score (SCOD).
        batch_size: examples predicted at once, at least 1.
        num_bootstrap: how often to resample; 0 for no standard errors.

    Raises:
        ValueError: no data set, or unknown examples alone; labels outside the classes, or targets outside the support,
            in whichever batch; negative or non-finite weights; an example that cannot be read; one resampling;
            ``selective`` with weights that are no whole numbers.
        TypeError: data that cannot be passed over; a predictive of all examples together; unknown examples for a
            predictive that is not of classes, without ``unknown_scores``; ``selective`` where targets are no classes.

    References:
        Xia and Bouganis, Augmenting softmax information for selective classification with out-of-distribution data,
        2022 (SCOD).

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (2, 3))
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), None)
        >>> predict = btl.predict.monte_carlo(jax.random.key(1), joint, btl.Point(net.params))
        >>> test = btl.data.arrays(jax.random.normal(jax.random.key(2), (50, 2)), jnp.arange(50) % 3)
        >>> far = btl.data.arrays(9 + jax.random.normal(jax.random.key(3), (40, 2)), jnp.zeros(40, int))
        >>> table = btl.metrics.evaluate(jax.random.key(4), predict, {"test": test, "ood/far": far}, num_bootstrap=20)
        >>> 0 < table["test", "accuracy"].standard_error < 0.2
        True
        >>> [score.metric for score in table.scores if score.dataset == "ood/far"][:2]
        ['auroc of largest_probability', 'average_precision of largest_probability']
    """
    check_arguments(evaluate, locals())
    datasets = dict(data) if isinstance(data, Mapping) else {"test": data}
    known = next((name for name in ("test", *datasets) if name in datasets and not _is_unknown(name)), None)
    if known is None:
        raise ValueError(f"data holds {list(datasets)}; give a data set of known examples, such as 'test'")
    if num_bootstrap == 1:
        raise ValueError("num_bootstrap is 1; a standard error needs at least 2, and 0 leaves it out")
    scored = _like_the_task if unknown_scores is None else partial(_by, unknown_scores)
    needs_scores = any(map(_is_unknown, datasets))
    gathered = {
        name: gather(
            predict,
            of_name,
            batch_size,
            has_targets=not _is_unknown(name),
            unknown_scores=scored if needs_scores and (name == known or _is_unknown(name)) else _no_scores,
        )
        for name, of_name in datasets.items()
    }
    scores: list[Score] = []
    for number, (name, own) in enumerate(gathered.items()):
        own_key = jax.random.fold_in(key, number)
        if _is_unknown(name):
            scores += told_apart(own_key, name, gathered[known], own, num_bootstrap, selective)
        else:
            values, errors = values_and_errors(own_key, own, num_bootstrap)
            names = [metric.name for metric in own.metrics]
            scores += map(Score, [name] * len(names), names, values.tolist(), errors.tolist())
            if selective:
                scores += not_answering(own_key, name, own, num_bootstrap)
    return ScoreTable(tuple(scores))


def _is_unknown(name: str) -> bool:
    return name.startswith("ood/")


def _no_scores(inputs: Any, predictive: Predictive) -> dict[str, Any]:
    return {}


def _by(scores: Mapping[str, Callable[[Any, Any], Any]], inputs: Any, predictive: Predictive) -> dict[str, Any]:
    """Scores of the user's, which may be made on the host."""
    num = len(jax.tree.leaves(inputs)[0])
    each = {name: score(inputs, predictive) for name, score in scores.items()}
    for name, values in each.items():
        if np.shape(values) != (num,):
            raise ValueError(f"unknown_scores[{name!r}] gave shape {np.shape(values)}; give one per example, ({num},)")
    return each


def _like_the_task(inputs: Any, predictive: Any) -> dict[str, Any]:
    if not predictive.is_classification:
        raise TypeError("unknown examples (ood/...) are told by the probabilities of classes; give unknown_scores")
    return _unlike(predictive)


@jax.jit
def _unlike(predictive: Any) -> dict[str, jax.Array]:
    """Scores that are high for examples unlike the task's, (B,) each."""
    probs = predictive.probs
    largest = jnp.maximum(probs, 1 - probs) if probs.ndim == 1 else jnp.max(probs, -1)
    scores = {"largest_probability": 1 - largest, "predictive_entropy": predictive.predictive_entropy()}
    if len(predictive.log_weights) > 1:
        scores["mutual_information"] = predictive.mutual_information()
    return scores
