"""The predictive by averaging over draws from a posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._posteriors import Point, Samples
from bayestl._types import Apply, Key, Params, Posterior
from bayestl.predict._predictive import Predictive


def monte_carlo(
    joint: Any,
    posterior: Posterior,
    key: Key,
    num_samples: int | None = None,
    *,
    batch_size: int | None = None,
    sample_chunk: int | None = None,
) -> Callable[[Any], Predictive]:
    """A function from inputs to their predictive, averaged over parameters drawn from ``posterior``.

    ``p(y | x, D) ~ 1/S sum_s p(y | f(x; theta_s)), theta_s ~ posterior``. The network runs deterministically, with the
    state that ``joint`` holds. The S draws are made once, here, and held: S copies of the parameters.

    Args:
        joint: a :class:`~bayestl.LogJoint`; its network, state and likelihood are used, its prior is not.
        posterior: what the parameters are drawn from.
        key: randomness of the draws.
        num_samples: S. None takes weighted draws (:class:`~bayestl.Samples`) as they are, each with its weight, and 1
            for a :class:`~bayestl.Point`; other posteriors need a number.
        batch_size: inputs seen at once; None for all. The last batch is padded, and the padding cut off again.
        sample_chunk: parameters evaluated side by side; None for one after another, the least memory.

    Raises:
        ValueError: a number below 1; ``num_samples`` left out where it is needed.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(0.1), None, num_data=10)
        >>> posterior = btl.gaussians.isotropic(net.params, scale=0.5)
        >>> predict = btl.predict.monte_carlo(joint, posterior, jax.random.key(0), 50)
        >>> predict(jnp.ones((3, 2))).mean().shape
        (3,)
    """
    for name, value in (("num_samples", num_samples), ("batch_size", batch_size), ("sample_chunk", sample_chunk)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    draws, log_weights = _draws(posterior, key, num_samples)
    chunk = 1 if sample_chunk is None else sample_chunk

    def predict(inputs: Any) -> Predictive:
        outputs = _outputs(draws, joint.state, inputs, apply=joint.apply, batch_size=batch_size, sample_chunk=chunk)
        return Predictive(outputs, joint.likelihood, log_weights)

    return predict


def _draws(posterior: Posterior, key: Key, num_samples: int | None) -> tuple[Params, jax.Array]:
    """Parameters with a leading axis S, and their normalised log weights (S,)."""
    if num_samples is None and isinstance(posterior, Samples):
        return posterior.draws, jax.nn.log_softmax(posterior.log_weights)
    if num_samples is None and not isinstance(posterior, Point):
        raise ValueError(
            f"num_samples is needed to draw from a {type(posterior).__name__}; only Samples (all of them) and Point "
            "(1) do without"
        )
    num = 1 if num_samples is None else num_samples
    return posterior.sample(key, num), jnp.full(num, -math.log(num))


# At module level, with the parameters as arguments: a second posterior of the same network runs the same program.
@partial(jax.jit, static_argnames=("apply", "batch_size", "sample_chunk"))
def _outputs(draws: Params, state: Any, inputs: Any, *, apply: Apply, batch_size: int | None, sample_chunk: int) -> Any:
    """Raw outputs, leaves (S, B, ...)."""

    def one(params: Params) -> Any:
        return _batched(lambda x: apply(params, state, x, None)[0], inputs, batch_size)

    if sample_chunk == 1:
        return jax.lax.map(one, draws)
    return jax.lax.map(one, draws, batch_size=sample_chunk)


def _batched(fn: Callable[[Any], Any], inputs: Any, batch_size: int | None) -> Any:
    """``fn`` of the inputs, ``batch_size`` at a time."""
    num = jax.tree.leaves(inputs)[0].shape[0]
    if batch_size is None or batch_size >= num:
        return fn(inputs)
    missing = -num % batch_size

    def split(x: jax.Array) -> jax.Array:
        # Copies of the last example, not zeros, are always valid inputs.
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), mode="edge")
        return x.reshape(-1, batch_size, *x.shape[1:])

    outputs = jax.lax.map(fn, jax.tree.map(split, inputs))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num], outputs)
