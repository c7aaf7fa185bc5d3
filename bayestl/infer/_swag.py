"""SWAG: the Gaussian that SGD's iterates on the target describe."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Inference, Key, NetState, Params, Scalar
from bayestl.gaussians import LowRank, low_rank
from bayestl.infer._checks import check_rank
from bayestl.infer._map_estimate import MAPInfo, MAPState, map_estimate
from bayestl.posteriors import Point
from bayestl.sources import Iterates, conventions


class SWAGState(NamedTuple):
    """Attributes:
    params: current parameters.
    opt_state: the optimizer's state.
    net_state: the network's state.
    iterates: running statistics of the iterates collected, :class:`~bayestl.sources.Iterates`.
    count: number of steps taken.
    """

    params: Params
    opt_state: Any
    net_state: NetState
    iterates: Iterates
    count: jax.Array


def swag(
    joint: LogJoint,
    optimizer: optax.GradientTransformation,
    *,
    rank: int,
    start: int,
    every: int,
    eps: Scalar,
    scale: Scalar = 1.0,
    allow_weight_decay: bool = False,
) -> Inference:
    """The mean and the spread of the iterates of training at a high, constant learning rate, as a Gaussian posterior.

    Trains as :func:`map_estimate` and collects the parameters after steps start + every, start + 2 every, ...; then
    ``N(mean, c/2 (diag(v) + Dev^T Dev / (K - 1)) + eps I)`` with v the variance of all T iterates (divisor T) and Dev
    the deviations of the last K from the final mean: the convention of :func:`bayestl.sources.from_iterates`. The
    spread is that of the gradient noise at this rate and batch size, not of the posterior, though often like it: choose
    c on validation data. The state holds K + 2 copies of the parameters more than that of training.

    A network with running statistics needs them anew at the mean: ``nets.reestimate_state``.

    Args:
        joint: the target.
        optimizer: any optax transformation; its learning rate after ``start`` should be constant, and high.
        rank: K, 2 to the number of parameters: how many of the last iterates make the low-rank part; while fewer have
            been collected, that many.
        start: steps that are not looked at, >= 0: the way to the region that is sampled.
        every: steps from one iterate to the next, >= 1: often an epoch.
        eps: floor on the diagonal, > 0, a variance. Weights that never moved have a variance of 0.
        scale: c > 0, the number that multiplies the covariance.
        allow_weight_decay: do not warn when the optimizer decays weights although a prior is set.

    Returns:
        An :class:`Inference` whose posterior is a :class:`~bayestl.gaussians.LowRank`; with fewer than 2 iterates the
        :class:`~bayestl.Point` where training stands (inside a program, where that cannot be, NaN).

    Raises:
        ValueError: a number out of range; at the start, more rank than parameters.

    Warns:
        RuntimeWarning: a posterior from fewer than 2 iterates.

    Reference:
        Maddox et al. 2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning", algorithm 1, with deviations
        from the final mean and not from a running one.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=20)
        >>> data = btl.data.arrays(jax.random.normal(jax.random.key(0), (20, 2)), jnp.ones(20))
        >>> inference = btl.infer.swag(joint, optax.sgd(0.1), rank=2, start=100, every=5, eps=1e-6)
        >>> fitted = btl.fit(jax.random.key(1), inference, net.params, data, steps=500, batch_size=2, progress=False)
        >>> int(fitted.state.iterates.count), fitted.posterior.rank
        (80, 2)
    """
    check_arguments(swag, locals())
    least = {"rank": (rank, 2), "start": (start, 0), "every": (every, 1)}
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise ValueError(f"{name} is {value}; it must be at least {smallest}")
    for name, value in (("eps", eps), ("scale", scale)):
        if _tree.is_concrete(value) and not float(value) > 0:
            reason = (
                "weights that never moved have a variance of 0" if name == "eps" else "it multiplies the covariance"
            )
            raise ValueError(f"{name} is {value}; it must be above 0: {reason}")
    point = map_estimate(joint, optimizer, allow_weight_decay=allow_weight_decay)
    return Inference(
        Partial(_init, point.init, rank),
        Partial(_step, point.step, start, every),
        Partial(_posterior, scale, eps),
        joint.check,
        joint.scorer(),
    )


def _init(init: Any, rank: int, key: Key, params: Params) -> SWAGState:
    state = init(key, params)
    check_rank(rank, state.params)
    iterates = Iterates.empty(state.params, rank)
    return SWAGState(state.params, state.opt_state, state.net_state, iterates, jnp.zeros((), jnp.int32))


def _step(step: Any, start: int, every: int, key: Key, state: SWAGState, batch: Batch) -> tuple[SWAGState, MAPInfo]:
    point, info = step(key, MAPState(state.params, state.opt_state, state.net_state), batch)
    count = state.count + 1
    collects = (count > start) & ((count - start) % every == 0)
    iterates = state.iterates.update(point.params, collects)
    return SWAGState(point.params, point.opt_state, point.net_state, iterates, count), info


def _posterior(scale: Any, eps: Any, state: SWAGState) -> LowRank | Point:
    count = state.iterates.count
    if _tree.is_concrete(count) and int(count) < 2:
        warnings.warn(
            f"swag has collected {int(count)} iterates in {int(state.count)} steps, and a covariance needs 2: run "
            "longer, or collect earlier (start) or more often (every); the posterior is the point where training is",
            RuntimeWarning,
            stacklevel=2,
        )
        return Point(state.params)
    return _gaussian(state.iterates, scale, eps)


def _gaussian(iterates: Iterates, scale: Any, eps: Any) -> LowRank:
    """As ``sources.from_iterates``, but with a number of iterates that may be traced."""
    rank = iterates.last.capacity
    stored: Any = jnp.minimum(iterates.count, rank)
    coefficients = conventions.swag(scale, eps, stored)
    # Rows that hold no iterate yet come first; a row of zeros in the factor adds nothing.
    weights = jnp.where(jnp.arange(rank) >= rank - stored, coefficients.deviations, 0)
    known = jnp.where(iterates.count >= 2, 1.0, jnp.nan)

    def deviations(x: jax.Array, m: jax.Array) -> jax.Array:
        return (weights.reshape(-1, *[1] * m.ndim) * (x - m)).astype(m.dtype)

    def variance(v: jax.Array) -> jax.Array:
        return (coefficients.variance * v + coefficients.floor).astype(v.dtype)

    mean = jax.tree.map(lambda m: (known * m).astype(m.dtype), iterates.mean)
    factor = jax.tree.map(deviations, iterates.newest(rank), iterates.mean)
    return low_rank(mean, jax.tree.map(variance, iterates.variance), factor)
