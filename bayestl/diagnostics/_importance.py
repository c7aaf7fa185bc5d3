"""Importance weights of draws from an approximation, with the log joint of all data."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._condition import of_part
from bayestl._convolutions import loop_map
from bayestl._data_size import sized, warn_of_size
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Params, Posterior
from bayestl.passes import batches


def log_importance_weights(
    joint: LogJoint, posterior: Posterior, draws: Params, data: Any, *, batch_size: int = 256
) -> np.ndarray:
    """``log P(D, theta_s) - log q(theta_s)`` at draws from an approximation q, nats: what :func:`psis` takes.

    Every draw takes one pass over all data, ``batch_size`` examples at a time. The log likelihoods of the batches are
    added, and the log prior and log q evaluated, in float64: each is of the order of D, but only their difference
    matters. The network runs deterministically, with the state that ``joint`` holds.

    Args:
        joint: the target, tempered as it says.
        posterior: q, with ``log_prob``; or a :class:`~bayestl.posteriors.Part` around such a q.
        draws: parameters drawn from q; leaves have a leading axis S.
        data: all the training data, in memory or a stream; or one :class:`~bayestl.Batch`, whose weights count.
        batch_size: examples at a time.

    Returns:
        (S,), float64; under a flat prior, up to a constant.

    Raises:
        TypeError: a posterior without ``log_prob``.
        ValueError: a log joint and a posterior of different parameters.
    """
    check_arguments(log_importance_weights, locals())
    joint, posterior = of_part(joint, posterior)
    random = set(joint.paths)
    draws = _tree.select_where(draws, lambda path: path in random)
    if not callable(getattr(posterior, "log_prob", None)):
        raise TypeError(
            f"importance weights need the density of the approximation; a {type(posterior).__name__} has no log_prob"
        )
    num = _num_draws(joint, draws)
    total = np.zeros(num)
    passes = batches(data, batch_size)
    warn_of_size(joint, passes.total_weight())
    joint = sized(joint, passes.total_weight())
    arrays, static = partition(joint)
    for batch in passes:
        total += np.asarray(_log_likelihoods(static, arrays, draws, batch), np.float64)
    likelihood = float(joint.kappa) * float(joint.num_data) / float(passes.total_weight()) * total
    prior = 0.0 if joint.prior is None else _in_float64(joint.prior, draws)
    return (likelihood + prior) / float(joint.temperature) - _in_float64(posterior, draws)


def _num_draws(joint: LogJoint, draws: Params) -> int:
    joint.check_paths("draws", draws)
    shapes = [jnp.shape(x) for x in jax.tree.leaves(draws)]
    if () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"draws hold arrays of shapes {shapes}; every leaf needs one leading axis of draws, (S, ...)")
    return shapes[0][0]


@partial(jax.jit, static_argnums=0)
def _log_likelihoods(static: Static, arrays: list[Any], draws: Params, batch: Batch) -> jax.Array:
    """Sums over the batch, (S,)."""
    joint = static.combine(arrays).replace(prior=None, temperature=1.0, kappa=1.0)
    joint = joint.replace(num_data=jnp.sum(jnp.asarray(batch.weights)))
    return loop_map(lambda params: joint(params, batch), draws)


def _in_float64(distribution: Any, draws: Params) -> np.ndarray:
    """Log densities (S,) in float64, wherever the numbers came from."""

    def lift(x: Any) -> Any:
        is_number = isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.floating)
        return np.asarray(x, np.float64) if is_number else x

    arrays, static = partition(jax.tree.map(lift, distribution))
    with jax.enable_x64(True):
        return np.asarray(_log_prob(static, arrays, jax.tree.map(lift, draws)), np.float64)


@partial(jax.jit, static_argnums=0)
def _log_prob(static: Static, arrays: list[Any], draws: Params) -> jax.Array:
    return jax.lax.map(static.combine(arrays).log_prob, draws)
