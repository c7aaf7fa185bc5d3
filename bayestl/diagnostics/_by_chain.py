"""The draws of a posterior by chain, and functions of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._log_joint import LogJoint
from bayestl._posteriors import Samples
from bayestl._types import Params
from bayestl.bridges import Chains
from bayestl.infer import Chain


def by_chain(posterior: Any, function: Callable[[Params], Any] | None = None) -> Any:
    """The draws of chains, or a function of them, with the chains apart: leaves (C, n, ...).

    Rows without a draw are left out; where chains have different numbers of draws (one stopped early), all are cut to
    the last n of each, n that of the shortest.

    Args:
        posterior: a :class:`~bayestl.infer.Chain`, of one chain or of those of :func:`~bayestl.fit_many`; or the
            :class:`~bayestl.bridges.Chains` of :func:`~bayestl.bridges.nuts`.
        function: params -> pytree of arrays, such as the network's outputs at some inputs (:func:`expected_targets`);
            None for the parameters.

    Raises:
        TypeError: a posterior that is no chain.
        ValueError: a chain without draws.

    Example:
        >>> chains = btl.infer.Chain({"w": jnp.ones((4, 10, 2))}, jnp.zeros((4, 10)), {"w": jnp.ones((4, 2))})
        >>> btl.diagnostics.by_chain(chains, lambda params: params["w"].sum()).shape
        (4, 10)
    """
    draws = _apart(posterior)
    if function is None:
        return draws
    num_chains, num = jax.tree.leaves(draws)[0].shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), draws)
    values = jax.lax.map(function, flat)
    return jax.tree.map(lambda x: x.reshape(num_chains, num, *x.shape[1:]), values)


def is_chain(posterior: Any) -> bool:
    """Whether draws have an order, so that their mixing can be asked for."""
    return isinstance(posterior, Chain | Chains)


def _apart(posterior: Any) -> Params:
    if isinstance(posterior, Chains):
        return posterior.by_chain()
    if not isinstance(posterior, Chain):
        hint = "; its draws have no order in time" if isinstance(posterior, Samples) else ""
        raise TypeError(f"posterior is a {type(posterior).__name__}, and no chain{hint}; give one of infer or bridges")
    log_weights, draws = posterior.log_weights, posterior.draws
    if log_weights.ndim == 1:
        log_weights, draws = log_weights[None], jax.tree.map(lambda x: x[None], draws)
    filled = np.isfinite(np.asarray(log_weights)).sum(axis=1)
    num = int(filled.min())
    if num == 0:
        raise ValueError(f"chain {int(filled.argmin())} holds no draws; leave it out, or run it for longer")
    # Rows are filled from the front.
    rows = filled[:, None] - num + np.arange(num)
    return jax.tree.map(lambda x: x[np.arange(len(rows))[:, None], rows], draws)


def expected_targets(joint: LogJoint, inputs: Any) -> Callable[[Params], Any]:
    """params -> what they predict for each input: class probabilities, or the expected target.

    The function to look at chains by: unlike parameters, it does not depend on how the network is written down.

    Args:
        joint: its network (deterministic, with the state it holds) and likelihood are used.
        inputs: a few of the inputs.
    """
    return partial(_expected, joint, inputs)


def _expected(joint: LogJoint, inputs: Any, params: Params) -> Any:
    distribution: Any = joint.likelihood(joint.outputs(params, inputs)[0])
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return jnp.asarray(distribution.probs if hasattr(distribution, "probs") else distribution.mean)


def num_draws(posterior: Any) -> int:
    """How many draws, rows without one left out."""
    return int(np.isfinite(np.asarray(posterior.log_weights)).sum())


def named(values: Any) -> dict[str, Any]:
    """Path to leaf, ``value`` for a single array."""
    return {path or "value": leaf for path, leaf in _tree.by_paths(values).items()}
