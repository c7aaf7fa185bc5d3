"""The draws of a posterior by chain, and functions of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Inputs, Params, Posterior
from bayestl.likelihoods import expected_target
from bayestl.posteriors import Chain, Samples


def by_chain(posterior: Posterior, function: Callable[[Params], Any] | None = None) -> Any:
    """The draws of chains, or a function of them, one chain per row: leaves (C, n, ...).

    Rows without a draw are left out. If the chains differ in length (one stopped early), only the last n draws of each
    are used, where n is the length of the shortest.

    Args:
        posterior: a :class:`~bayestl.posteriors.Chain`: of one chain, of those of :func:`~bayestl.fit_many` (pooled or
            not), or of :func:`~bayestl.bridges.nuts`.
        function: params -> pytree of arrays, such as the network's outputs at some inputs (:func:`expected_targets`);
            None for the parameters.

    Raises:
        TypeError: a posterior that is not a chain.
        ValueError: a chain without draws.

    Example:
        >>> chains = btl.posteriors.Chain({"w": jnp.ones((4, 10, 2))}, jnp.zeros((4, 10)), {"w": jnp.ones((4, 2))})
        >>> btl.diagnostics.by_chain(chains, lambda params: params["w"].sum()).shape
        (4, 10)
    """
    check_arguments(by_chain, locals())
    draws = _apart(posterior)
    if function is None:
        return draws
    num_chains, num = jax.tree.leaves(draws)[0].shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), draws)
    values = jax.lax.map(function, flat)
    return jax.tree.map(lambda x: x.reshape(num_chains, num, *x.shape[1:]), values)


def is_chain(posterior: Posterior) -> bool:
    """Whether the draws have an order in time, without which mixing means nothing."""
    return isinstance(posterior, Chain)


def stats_by_chain(posterior: Chain) -> dict[str, jax.Array]:
    """What the sampler reports about each draw, one chain per row: arrays (C, n)."""
    return _rows_apart(posterior, posterior.stats)


def _apart(posterior: Posterior) -> Params:
    if not isinstance(posterior, Chain):
        hint = "; its draws have no order in time" if isinstance(posterior, Samples) else ""
        raise TypeError(
            f"posterior is a {type(posterior).__name__}, and not a chain{hint}; give one of infer.sgld, infer.sghmc or "
            "bridges.nuts"
        )
    return _rows_apart(posterior, posterior.draws)


def _rows_apart(posterior: Chain, values: Any) -> Any:
    """Leaves (S, ...) or (C, n, ...), whose rows are the posterior's, as (C, m, ...)."""
    filled = np.isfinite(np.asarray(posterior.log_weights))
    if posterior.chain is not None and filled.ndim == 1:
        numbers = np.asarray(posterior.chain)
        rows = [np.flatnonzero(filled & (numbers == number)) for number in np.unique(numbers)]
    else:
        width = filled.shape[-1]
        rows = [np.flatnonzero(row) + number * width for number, row in enumerate(filled.reshape(-1, width))]
        values = jax.tree.map(lambda x: x.reshape(-1, *x.shape[filled.ndim :]), values)
    num = min(len(row) for row in rows)
    if num == 0:
        empty = next(number for number, row in enumerate(rows) if not len(row))
        raise ValueError(f"chain {empty} holds no draws; leave it out, or run it longer")
    last = np.stack([row[-num:] for row in rows])
    return jax.tree.map(lambda x: x[last], values)


def expected_targets(joint: LogJoint, inputs: Inputs) -> Callable[[Params], Any]:
    """params -> what they predict for each input: class probabilities, or the expected target.

    Judge chains by this function: unlike the parameters, it does not depend on how the network is parametrised.

    Args:
        joint: its network (deterministic, with the state it holds) and likelihood are used.
        inputs: a few of the inputs.
    """
    check_arguments(expected_targets, locals())
    return partial(_expected, joint, inputs)


def _expected(joint: LogJoint, inputs: Inputs, params: Params) -> Any:
    return expected_target(joint.likelihood, joint.outputs(params, inputs)[0])


def num_draws(posterior: Any) -> int:
    """How many draws there are, not counting rows without one."""
    return int(np.isfinite(np.asarray(posterior.log_weights)).sum())


def named(values: Any) -> dict[str, Any]:
    """From paths to leaves; a single array is called ``value``."""
    return {path or "value": leaf for path, leaf in _tree.by_paths(values).items()}
