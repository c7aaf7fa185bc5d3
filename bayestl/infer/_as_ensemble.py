"""Many runs as one posterior."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl.posteriors import Mixture, Point, Samples, pooled
from bayestl.training import ManyResult


def as_ensemble(result: ManyResult) -> Samples | Mixture:
    """The members of :func:`~bayestl.fit_many` as one posterior, each of the same weight.

    Args:
        result: of a method whose members share one target; those that failed are left out.

    Returns:
        A :class:`~bayestl.Samples` where members are points or draws, else a :class:`~bayestl.Mixture`.

    Raises:
        ValueError: every member failed, or one has a posterior that is not finite.

    Warns:
        RuntimeWarning: members were left out, or have running statistics of their own.
    """
    check_arguments(as_ensemble, locals())
    alive = np.flatnonzero(result.failed < 0)
    num_members = len(result.failed)
    if not alive.size:
        raise ValueError(f"all {num_members} members became non-finite; try a smaller learning rate")
    if alive.size < num_members:
        _warn(f"{num_members - alive.size} of {num_members} members failed and are left out of the ensemble")
    posterior, net_state = jax.tree.map(lambda x: x[alive], (result.posterior, result.net_state))
    if any(bool(jnp.any(x != x[:1])) for x in jax.tree.leaves(net_state) if jnp.issubdtype(x.dtype, jnp.floating)):
        _warn(
            "members have running statistics of their own, and a posterior over parameters does not hold them: train "
            "with frozen ones (nets.frozen_state), or use fit_many and predict with each member's own net_state"
        )
    if isinstance(posterior, Point):
        return Samples(posterior.params, jnp.zeros(alive.size))
    if isinstance(posterior, Samples):
        return pooled(posterior)
    fix = "did every member run long enough to have one (swag: two iterates)?"
    _tree.check_finite("the posterior of the members", posterior, fix)
    components = tuple(jax.tree.map(lambda x, m=m: x[m], posterior) for m in range(alive.size))
    return Mixture(components, jnp.zeros(alive.size))


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
