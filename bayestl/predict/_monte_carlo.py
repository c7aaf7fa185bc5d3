"""The predictive by averaging over draws from a posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._applied import call_network
from bayestl._arguments import check_arguments
from bayestl._condition import for_draws, without_rest
from bayestl._convolutions import loop_map
from bayestl._log_joint import LogJoint
from bayestl._types import Apply, Inputs, Key, Params, Posterior
from bayestl.passes import num_inputs, scanned
from bayestl.posteriors import Point, Samples
from bayestl.predict._nan import warn_of_nan
from bayestl.predict._predictive import Predictive


def monte_carlo(
    key: Key,
    joint: LogJoint,
    posterior: Posterior,
    num_samples: int | None = None,
    *,
    batch_size: int | None = None,
    sample_chunk: int | None = None,
) -> Callable[[Any], Predictive]:
    """A function from inputs to their predictive, averaged over parameters drawn from ``posterior``.

    ``p(y | x, D) ~ 1/S sum_s p(y | f(x; theta_s)), theta_s ~ posterior``. The network runs deterministically, with the
    state that ``joint`` holds. The S draws are made once, here, and held: S copies of the parameters. The outputs of
    all draws at all inputs are kept, S x B x C numbers, of which every score of the mixture can be asked. Where that is
    too much, :func:`monte_carlo_average` keeps averages alone.

    Args:
        key: randomness of the draws.
        joint: a :class:`~bayestl.LogJoint`; its network, state and likelihood are used, its prior is not.
        posterior: what the parameters are drawn from.
        num_samples: S. None takes weighted draws (:class:`~bayestl.Samples`) as they are, each with its weight, and 1
            for a :class:`~bayestl.Point`; other posteriors need a number.
        batch_size: inputs seen at once; None for all. The last batch is padded, and the padding cut off again.
        sample_chunk: parameters evaluated side by side; None for one after another, the least memory.

    Raises:
        ValueError: a number below 1; ``num_samples`` left out where it is needed.

    Warns:
        RuntimeWarning: at the call, predictions that are NaN.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(0.1), None, num_data=10)
        >>> posterior = btl.gaussians.isotropic(net.params, scale=0.5)
        >>> predict = btl.predict.monte_carlo(jax.random.key(0), joint, posterior, 50)
        >>> predict(jnp.ones((3, 2))).mean.shape
        (3,)
    """
    check_arguments(monte_carlo, locals())
    check_numbers(num_samples=num_samples, batch_size=batch_size, sample_chunk=sample_chunk)
    joint, posterior = without_rest(joint, posterior)
    draws, log_weights = _draws(posterior, key, num_samples)
    joint = for_draws(joint, draws)
    chunk = 1 if sample_chunk is None else sample_chunk

    def predict(inputs: Inputs) -> Predictive:
        num_inputs(inputs)
        outputs = _outputs(draws, joint.state, inputs, apply=joint.apply, batch_size=batch_size, sample_chunk=chunk)
        warn_of_nan(outputs, inputs, 1)
        return Predictive(outputs, joint.likelihood, log_weights)

    return predict


def check_numbers(**numbers: int | None) -> None:
    """Raise on one below 1."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


def num_of_draws(posterior: Posterior, num_samples: int | None) -> int | None:
    """How many draws to make; None to take weighted draws as they are."""
    if num_samples is None and not isinstance(posterior, Point | Samples):
        raise ValueError(
            f"num_samples is needed to draw from a {type(posterior).__name__}; only Samples (all of them) and Point "
            "(1) do without"
        )
    return 1 if num_samples is None and isinstance(posterior, Point) else num_samples


def _draws(posterior: Posterior, key: Key, num_samples: int | None) -> tuple[Params, jax.Array]:
    """Parameters with a leading axis S, and their normalised log weights (S,)."""
    num = num_of_draws(posterior, num_samples)
    if num is None:
        samples: Any = posterior
        return samples.draws, jax.nn.log_softmax(samples.log_weights)
    return posterior.sample(key, num), jnp.full(num, -math.log(num))


# At module level, with the parameters as arguments: a second posterior of the same network runs the same program.
@partial(jax.jit, static_argnames=("apply", "batch_size", "sample_chunk"))
def _outputs(
    draws: Params, state: Any, inputs: Inputs, *, apply: Apply, batch_size: int | None, sample_chunk: int
) -> Any:
    """Raw outputs, leaves (S, B, ...)."""

    def one(params: Params) -> Any:
        return scanned(lambda x: call_network(lambda: apply(params, state, x, None)[0], params, x), inputs, batch_size)

    return loop_map(one, draws, batch_size=None if sample_chunk == 1 else sample_chunk)
