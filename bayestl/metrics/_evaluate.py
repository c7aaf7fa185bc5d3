"""A report over a whole data set, one batch of predictions at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Batch, Data, Targets
from bayestl.metrics._examples import Predictive, check_targets
from bayestl.metrics._metric import Metric
from bayestl.metrics._report import metrics_of
from bayestl.passes import Batches, batches


def evaluate(
    predict: Callable[[Any], Predictive], data: Data | Batch | Batches, *, batch_size: int = 256
) -> dict[str, float]:
    """The metrics of :func:`report` over all examples of a data set, in memory or read from storage.

    The same numbers, up to rounding, as ``report(predict(inputs), targets, weights)`` on all the data at once; but the
    outputs of S draws, S x B x C numbers, are held for one batch alone. Of every example a few numbers are kept on the
    host: its log probability, its confidence, whether the answer was right. So calibration, whose bins are those of all
    examples, is exact as well.

    ``predict`` is called once per batch, and every batch has the same shape. A predictive function that draws as many
    random numbers as there are inputs (``link=predict.sampled(key, num_samples)``) draws others for a batch than for
    all the data, and its report then differs by the noise of its draws.

    Args:
        predict: inputs to their predictive: what ``predict.monte_carlo``, ``predict.monte_carlo_average``,
            ``predict.linearized`` or ``predict.mc_dropout`` give, or any function that gives such a predictive.
        data: a data set; one :class:`~bayestl.Batch`, whose weights count; or ``passes.batches(data, batch_size,
            sharding=...)`` for a mesh.
        batch_size: examples predicted at once, at least 1.

    Returns:
        Name to number, as :func:`report` gives.

    Raises:
        ValueError: labels outside the classes, or targets outside the support, in whichever batch; negative or
            non-finite weights; an example that cannot be read.
        TypeError: data that cannot be passed over; a predictive of all examples together.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=5)
        >>> predict = btl.predict.monte_carlo(jax.random.key(0), joint, btl.Point(net.params))
        >>> data = btl.data.arrays(jnp.ones((5, 2)), jnp.array([2.0, -2.0, 2.0, -2.0, 2.0]))
        >>> btl.metrics.evaluate(predict, data, batch_size=2)["rmse"]
        2.0
    """
    check_arguments(evaluate, locals())
    gathered = gather(predict, data, batch_size)
    values = summaries(gathered.numbers, gathered.weights, gathered.metrics)
    return {metric.name: float(value) for metric, value in zip(gathered.metrics, values, strict=True)}


class Gathered(NamedTuple):
    """What the metrics of a data set are made of, on the host.

    Attributes:
        numbers: of each metric, what it keeps of every example, leaves (N, ...).
        weights: (N,), 0 for padding.
        metrics: those that apply.
        further: what ``also`` gave, leaves (N, ...).
    """

    numbers: list[Any]
    weights: np.ndarray
    metrics: tuple[Metric, ...]
    further: Any


def gather(
    predict: Callable[[Any], Predictive],
    data: Data | Batch | Batches,
    batch_size: int,
    *,
    has_targets: bool = True,
    also: Callable[[Predictive], Any] = lambda predictive: (),
) -> Gathered:
    """One pass over a data set, a batch of predictions at a time.

    Args:
        predict: inputs to their predictive.
        data: a data set.
        batch_size: examples predicted at once.
        has_targets: False for examples whose targets mean nothing; no metric applies then.
        also: what else to keep of each predictive, leaves (B, ...).
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
        parts.append(passes.to_host((numbers, batch.weights, also(predictive))))
    numbers, weights, further = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    return Gathered(numbers, weights, chosen, further)


@partial(jax.jit, static_argnames="chosen")
def _each(predictive: Predictive, targets: Targets, chosen: tuple[Metric, ...]) -> list[Any]:
    return [metric.each(predictive, targets) for metric in chosen]


@partial(jax.jit, static_argnames="chosen")
def summaries(numbers: list[Any], weights: Any, chosen: tuple[Metric, ...]) -> list[jax.Array]:
    """The metrics of all examples together."""
    return [metric.summary(each, weights) for metric, each in zip(chosen, numbers, strict=True)]
