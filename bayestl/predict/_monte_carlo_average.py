"""The predictive by averaging over draws from a posterior, of which no draw is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl._applied import call_network
from bayestl._arguments import check_arguments
from bayestl._condition import for_draws, without_rest
from bayestl._convolutions import loop_map
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Apply, Batch, Inputs, Key, Likelihood, Params, Posterior
from bayestl.likelihoods import check_inherited, check_normalised, describe_predictive, predictive_distribution
from bayestl.passes import num_inputs, split
from bayestl.predict._averages import AveragedClasses, AveragedMoments
from bayestl.predict._inputs import check_inputs
from bayestl.predict._monte_carlo import check_numbers, num_of_draws
from bayestl.predict._nan import warn_of_nan
from bayestl.predict._running import CLASSES, MOMENTS


def monte_carlo_average(
    key: Key,
    joint: LogJoint,
    posterior: Posterior,
    num_samples: int | None = None,
    *,
    batch_size: int | None = None,
    sample_chunk: int | None = None,
) -> Callable[[Any], AveragedClasses | AveragedMoments]:
    """A function from inputs to their predictive, averaged over parameters that are drawn, used and thrown away.

    What :func:`monte_carlo` predicts, for many draws, many inputs or many classes at once: neither S copies of the
    parameters nor S x B x C outputs are ever held, only the running averages. For classes these are the probabilities
    and the entropies, of which every score of the mixture follows; for all other targets mean and variances.

    Args:
        key: randomness of the draws. Draws are made chunk by chunk, so they are others than those of
            :func:`monte_carlo`, and depend on ``sample_chunk``; they are the same for all inputs and every call.
        joint: a :class:`~bayestl.LogJoint`; its network, state and likelihood are used, its prior is not.
        posterior: what the parameters are drawn from.
        num_samples: S. None takes weighted draws (:class:`~bayestl.Samples`) as they are, each with its weight, and 1
            for a :class:`~bayestl.Point`; other posteriors need a number.
        batch_size: inputs seen at once; None for all. The last batch is padded, and the padding cut off again.
        sample_chunk: parameters drawn and evaluated side by side; None for one after another, the least memory.

    Raises:
        ValueError: a number below 1; ``num_samples`` left out where it is needed.

    Warns:
        RuntimeWarning: at the call, predictions that are NaN.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros((2, 3))})
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=10)
        >>> posterior = btl.gaussians.isotropic(net.params, scale=0.5)
        >>> predict = btl.predict.monte_carlo_average(jax.random.key(0), joint, posterior, 1000, sample_chunk=100)
        >>> given = predict(jnp.ones((4, 2)))
        >>> given.probs.shape, given.mutual_information().shape
        ((4, 3), (4,))
    """
    check_arguments(monte_carlo_average, locals())
    check_numbers(num_samples=num_samples, batch_size=batch_size, sample_chunk=sample_chunk)
    joint, posterior = without_rest(joint, posterior)
    num = num_of_draws(posterior, num_samples)
    joint = for_draws(joint, jax.eval_shape(lambda key: posterior.sample(key, 1), key))
    dynamic, static = partition(posterior)
    settings = _Settings(static, joint.apply, num, 1 if sample_chunk is None else sample_chunk, batch_size)

    def predict(inputs: Inputs) -> AveragedClasses | AveragedMoments:
        check_inputs(inputs)
        averages = _averaged(dynamic, joint.likelihood, joint.state, key, inputs, settings=settings)
        warn_of_nan(averages, inputs, 0)
        return averages

    return predict


class _Settings(NamedTuple):
    """The static part of a program."""

    posterior: Static
    apply: Apply
    num_samples: int | None
    sample_chunk: int
    batch_size: int | None


# At module level, with the posterior's arrays as arguments: a second posterior of the same kind runs the same program.
@partial(jax.jit, static_argnames="settings")
def _averaged(
    dynamic: list[Any], likelihood: Likelihood, state: Any, key: Key, inputs: Inputs, *, settings: _Settings
) -> AveragedClasses | AveragedMoments:
    num = num_inputs(inputs)
    batches = split(inputs, num if settings.batch_size is None else min(settings.batch_size, num))
    draw, log_weights = _draw_by_chunk(settings.posterior.combine(dynamic), key, settings)

    def outputs(params: Params, batch: Batch) -> Any:
        return call_network(lambda: settings.apply(params, state, batch, None)[0], params, batch)

    params, batch = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], (draw(0), batches)))
    shapes = jax.eval_shape(outputs, params, batch)
    description = describe_predictive(likelihood, shapes)
    check_normalised(likelihood, shapes, "a predictive")
    if description.is_categorical and not description.is_class:
        raise TypeError("several class labels per example have no mean; keep their outputs with predict.monte_carlo")
    kind = CLASSES if description.is_class else MOMENTS
    for name in () if description.is_class else ("mean", "variance"):
        check_inherited(description.family, name, f"a predictive's {name}")

    def sums(draws: Params, weights: jax.Array) -> Any:
        def of_batch(batch: Batch) -> Any:
            def one(params: Params) -> Any:
                return kind.values(predictive_distribution(likelihood, outputs(params, batch)))

            if settings.sample_chunk == 1:  # no vmap over one set of weights, which would slow convolutions down
                return kind.sums(weights, jax.tree.map(lambda x: x[None], one(jax.tree.map(lambda x: x[0], draws))))
            return kind.sums(weights, jax.vmap(one)(draws))

        return loop_map(of_batch, batches)

    def step(total: Any, chunk: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        number, weights = chunk
        return jax.vmap(kind.add)(total, sums(draw(number), weights)), None

    empty = kind.empty(jax.eval_shape(lambda: sums(draw(0), log_weights[0])))
    total, _ = jax.lax.scan(step, empty, (jnp.arange(len(log_weights)), log_weights))
    return kind.result(total, num, description)


def _draw_by_chunk(posterior: Any, key: Key, settings: _Settings) -> tuple[Callable[[Any], Params], jax.Array]:
    """Draws (chunk, ...) of a number, and log weights (number of chunks, chunk): -inf for those that are too many."""
    size = settings.sample_chunk
    if settings.num_samples is None:
        log_weights = jax.nn.log_softmax(posterior.log_weights)
        last = len(log_weights) - 1

        def draw(number: Any) -> Params:
            rows = jnp.minimum(number * size + jnp.arange(size), last)
            return jax.tree.map(lambda x: x[rows], posterior.draws)
    else:
        log_weights = jnp.full(settings.num_samples, -math.log(settings.num_samples))

        def draw(number: Any) -> Params:
            return posterior.sample(jax.random.fold_in(key, number), size)

    padded = jnp.pad(log_weights, (0, -len(log_weights) % size), constant_values=-jnp.inf)
    return draw, padded.reshape(-1, size)
