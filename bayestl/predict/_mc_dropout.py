"""The average over a network's own dropout, for comparison with posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._applied import call_network
from bayestl._arguments import check_arguments
from bayestl._condition import for_draws
from bayestl._convolutions import loop_map
from bayestl._log_joint import LogJoint
from bayestl._types import Apply, Inputs, Key, Outputs, Params
from bayestl.passes import num_inputs
from bayestl.predict._nan import warn_of_nan
from bayestl.predict._predictive import Predictive


def mc_dropout(
    key: Key,
    joint: LogJoint,
    params: Params,
    num_samples: int,
    *,
    batch_size: int | None = None,
    sample_chunk: int | None = None,
) -> Callable[[Any], Predictive]:
    """A function from inputs to their predictive, averaged over the dropout masks of a network at fixed parameters.

    ``p(y | x) ~ 1/S sum_s p(y | f(x; theta, masks_s))``. Every draw is one thinned network, the same for all inputs:
    each input is passed by itself, with the draw's key, so that its predictive depends neither on ``batch_size`` nor
    on the inputs beside it. Running statistics are used and stay as they are.

    It is a posterior by a stretch of the word: how sure it is follows from the dropout rate, and does not change with
    the number of examples. Here to be compared with.

    Args:
        key: randomness of the masks; the same key gives the same masks.
        joint: a :class:`~bayestl.LogJoint`; its network, state and likelihood are used.
        params: parameters that were trained with dropout: ``fitted.params`` of :func:`bayestl.infer.map_estimate`.
        num_samples: S >= 2, masks drawn.
        batch_size: inputs seen at once; None for all.
        sample_chunk: masks evaluated side by side; None for one after another, the least memory.

    Raises:
        ValueError: numbers out of range; at the call, a network that gives the same outputs under every key, or whose
            state changes when it is given one.

    Warns:
        RuntimeWarning: at the call, predictions that are NaN.

    Reference:
        Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation" (arXiv 1506.02142).

    Example:
        >>> import flax.linen as nn
        >>> module = nn.Sequential([nn.Dropout(0.5, deterministic=False), nn.Dense(1)])
        >>> variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, jnp.ones((1, 3)))
        >>> net = btl.nets.from_linen(module, variables)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(0.1), None, num_data=10)
        >>> predict = btl.predict.mc_dropout(jax.random.key(2), joint, net.params, 100)
        >>> predict(jnp.ones((5, 3))).function_variance().shape
        (5, 1)
    """
    check_arguments(mc_dropout, locals())
    if num_samples < 2:
        raise ValueError(f"num_samples is {num_samples}; an average over masks needs at least 2")
    for name, value in (("batch_size", batch_size), ("sample_chunk", sample_chunk)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    joint = for_draws(joint, params)
    keys = jax.random.split(key, num_samples)
    log_weights = jnp.full(num_samples, -math.log(num_samples))

    def predict(inputs: Inputs) -> Predictive:
        num_inputs(inputs)
        outputs, moved = _outputs(
            params, joint.state, keys, inputs, apply=joint.apply, batch_size=batch_size, sample_chunk=sample_chunk or 1
        )
        _check(outputs, moved)
        warn_of_nan(outputs, inputs, 1)
        return Predictive(outputs, joint.likelihood, log_weights)

    return predict


# At module level, with the parameters as arguments: other parameters of the same network run the same program.
@partial(jax.jit, static_argnames=("apply", "batch_size", "sample_chunk"))
def _outputs(
    params: Params, state: Any, keys: Key, inputs: Inputs, *, apply: Apply, batch_size: int | None, sample_chunk: int
) -> tuple[Any, jax.Array]:
    """Raw outputs, leaves (S, B, ...), and whether any draw changed a running statistic."""

    def one(key: Key, example: Any) -> tuple[Any, jax.Array]:
        single = jax.tree.map(lambda x: x[None], example)
        outputs, new = call_network(lambda: apply(params, state, single, key), params, single)
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True)
        changes = [jnp.any(x != y) for x, y in pairs if jnp.issubdtype(x.dtype, jnp.floating)]
        moved = jnp.any(jnp.stack(changes)) if changes else jnp.array(False)
        return jax.tree.map(lambda x: x[0], outputs), moved

    def thinned(key: Key) -> tuple[Any, jax.Array]:
        if batch_size is None:
            outputs, moved = jax.vmap(partial(one, key))(inputs)
        else:
            outputs, moved = loop_map(partial(one, key), inputs, batch_size=batch_size)
        return outputs, jnp.any(moved)

    outputs, moved = loop_map(thinned, keys, batch_size=None if sample_chunk == 1 else sample_chunk)
    return outputs, jnp.any(moved)


def _check(outputs: Outputs, moved: jax.Array) -> None:
    if not _tree.is_concrete((outputs, moved)):
        return
    if bool(moved):
        raise ValueError(
            "the network's running statistics change when it is given a key, so that they normalise in training mode; "
            "freeze them: LogJoint of nets.frozen_state(net)"
        )
    if all(bool(jnp.all(x == x[:1])) for x in jax.tree.leaves(outputs)):
        raise ValueError(
            "the network gives the same outputs under every key, so that there is no dropout to average over; for a "
            "linen module say what turns dropout on: nets.from_linen(..., train={'train': True})"
        )
