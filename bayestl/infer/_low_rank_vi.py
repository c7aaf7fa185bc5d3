"""Low-rank variational inference: the best Gaussian with correlations along a few learned directions."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._infos import ELBOInfo
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Inference, Key, NetState, Params, Scalar
from bayestl.gaussians import LowRank, low_rank
from bayestl.infer._checks import check_params, check_rank, warn_weight_decay
from bayestl.infer._factored import Factored
from bayestl.infer._variational import Bound, Divergence, check_sampling, default_divergence, minimise, negative_elbo


class LowRankVIState(NamedTuple):
    """Attributes:
    mean: means of the approximation.
    log_scale: logs of the square roots of the diagonal part, in the structure of ``mean``.
    factor: the low-rank part's factor, leaves (k, *shape).
    opt_state: the optimizer's state, over ``(mean, log_scale, factor)``.
    net_state: the network's state.
    """

    mean: Any
    log_scale: Any
    factor: Any
    opt_state: Any
    net_state: NetState


def low_rank_vi(
    joint: LogJoint,
    optimizer: optax.GradientTransformation,
    *,
    rank: int,
    num_samples: int = 1,
    initial_scale: Scalar = 1e-2,
    divergence: Divergence | None = None,
    allow_weight_decay: bool = False,
) -> Inference:
    """The Gaussian ``N(mean, diag(a) + F^T F)`` with k rows F that is nearest to the posterior in KL(q || posterior).

    Maximises ``ELBO = kappa/T E_q[log P(D | theta)] - KL(q || prior_T)`` with draws
    ``theta = mean + a^1/2 e1 + F^T e2``, where prior_T is the prior's density to the power 1/T. What
    :func:`mean_field_vi` leaves out, the correlations between parameters, is kept along k directions: wide ones, since
    ``F^T F`` adds to the diagonal part. On linear-Gaussian problems it is the posterior itself whenever the posterior
    covariance less some diagonal has rank k; then the ELBO is the log evidence. A step costs the draws, and for the KL
    O(D k^2) time, k quadratic forms of the prior, and k + 2 copies of the parameters.

    Args:
        joint: the target.
        optimizer: any optax transformation; it moves means, log scales and factor.
        rank: k, 1 to the number of parameters.
        num_samples: draws per step, >= 1, each a pass through the network.
        initial_scale: standard deviation of every parameter at the start, > 0: half of the variance in the diagonal
            part, half, on average, in a random factor.
        divergence: KL(q || prior) as a function; by default the closed form for Gaussian priors, the negative entropy
            of q for the flat prior, and :func:`monte_carlo_kl` for all others. Near the posterior
            :func:`sticking_the_landing` has less noise.
        allow_weight_decay: do not warn when the optimizer decays parameters.

    Returns:
        An :class:`Inference` whose posterior is a :class:`~bayestl.gaussians.LowRank`.

    Raises:
        ValueError: a rank below 1, or, at the start, above the number of parameters; num_samples below 1; an
            initial_scale that is not positive.

    Reference:
        Ong, Nott and Smith 2018, "Gaussian variational approximation with a factor covariance structure"; the KL here
        is exact where the prior has a closed form.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
        >>> data = btl.data.arrays(jnp.ones((4, 2)), jnp.full(4, 2.0))
        >>> schedule = optax.exponential_decay(0.05, 400, 0.5)
        >>> inference = btl.infer.low_rank_vi(joint, optax.adam(schedule), rank=1, num_samples=16, initial_scale=0.3)
        >>> fitted = btl.fit(jax.random.key(0), inference, net.params, data, steps=4000, progress=False)
        >>> print(fitted.posterior.covariance_mv({"w": jnp.array([1.0, -1.0])})["w"].round(1))
        [ 1. -1.]
    """
    check_arguments(low_rank_vi, locals())
    if rank < 1:
        raise ValueError(f"rank is {rank}; it must be at least 1: use mean_field_vi for independent parameters")
    check_sampling(num_samples, initial_scale)
    divergence = default_divergence(joint.prior) if divergence is None else divergence
    return Inference(
        Partial(_init, joint, optimizer, rank, jnp.asarray(initial_scale), allow_weight_decay),
        Partial(_step, joint, optimizer, divergence, num_samples),
        Partial(_posterior),
        joint.check,
        joint.scorer(),
    )


def _init(
    joint: LogJoint,
    optimizer: Any,
    rank: int,
    initial_scale: jax.Array,
    allow_weight_decay: bool,
    key: Key,
    params: Params,
) -> LowRankVIState:
    check_params(joint, params)
    mean = _tree.at_least_float32(params)
    check_rank(rank, mean)
    log_scale = jax.tree.map(lambda m: jnp.full(m.shape, jnp.log(initial_scale / 2**0.5), m.dtype), mean)
    noise = _tree.normal_like(key, mean, rank)
    factor = jax.tree.map(lambda e: (initial_scale / (2 * rank) ** 0.5).astype(e.dtype) * e, noise)
    if not allow_weight_decay:
        warn_weight_decay(optimizer, (mean, log_scale, factor))
    return LowRankVIState(mean, log_scale, factor, optimizer.init((mean, log_scale, factor)), joint.moving_state)


def _step(
    joint: LogJoint, optimizer: Any, divergence: Divergence, num_samples: Any, key: Key, state: Any, batch: Batch
) -> tuple[LowRankVIState, ELBOInfo]:
    def loss(variational: tuple[Params, Params, Params]) -> tuple[jax.Array, Bound]:
        q = _approximation(*variational)
        return negative_elbo(key, joint, q.draw, q, divergence, num_samples, batch, state.net_state)

    variational = (state.mean, state.log_scale, state.factor)
    (mean, log_scale, factor), opt_state, value, bound = minimise(optimizer, loss, variational, state.opt_state)
    info = ELBOInfo(value, bound.elbo, bound.nll, bound.kl)
    return LowRankVIState(mean, log_scale, factor, opt_state, bound.net_state), info


def _approximation(mean: Params, log_scale: Params, factor: Params) -> Factored:
    return Factored(mean, jax.tree.map(lambda s: jnp.exp(2 * s), log_scale), factor)


def _posterior(state: LowRankVIState) -> LowRank:
    q = _approximation(state.mean, state.log_scale, state.factor)
    return low_rank(q.mean, q.diagonal, q.factor)
