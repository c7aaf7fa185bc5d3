"""Mean-field variational inference: the best Gaussian with independent parameters around any prior."""

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
from bayestl.gaussians import Diagonal
from bayestl.infer._checks import check_params, warn_weight_decay
from bayestl.infer._variational import Bound, Divergence, check_sampling, default_divergence, minimise, negative_elbo


class MeanFieldVIState(NamedTuple):
    """Attributes:
    mean: means of the approximation.
    log_scale: log standard deviations, in the structure of ``mean``.
    opt_state: the optimizer's state, over ``(mean, log_scale)``.
    net_state: the network's state.
    """

    mean: Any
    log_scale: Any
    opt_state: Any
    net_state: NetState


def mean_field_vi(
    joint: LogJoint,
    optimizer: optax.GradientTransformation,
    *,
    num_samples: int = 1,
    initial_scale: Scalar = 1e-2,
    divergence: Divergence | None = None,
    allow_weight_decay: bool = False,
) -> Inference:
    """The Gaussian with independent parameters that is nearest to the posterior in KL(q || posterior).

    Maximises ``ELBO = kappa/T E_q[log P(D | theta)] - KL(q || prior_T)`` with reparameterised draws
    ``theta = mean + scale * noise``, where prior_T is the prior's density to the power 1/T. Every parameter has a
    variance of its own, noise in the likelihood term, and a share in the KL. On linear-Gaussian problems its variances
    are the inverse diagonal of the posterior precision: too small where parameters are correlated.

    Args:
        joint: the target.
        optimizer: any optax transformation; it moves means and log standard deviations.
        num_samples: draws per step, >= 1, each a pass through the network.
        initial_scale: standard deviation of every parameter at the start, > 0. One that drowns the weights (0.1 for a
            deep network, say) makes a slow start.
        divergence: KL(q || prior) as a function; by default the closed form for Gaussian priors, the negative entropy
            of q for the flat prior, and :func:`monte_carlo_kl` for all others. Near the posterior
            :func:`sticking_the_landing` has less noise.
        allow_weight_decay: do not warn when the optimizer decays parameters.

    Returns:
        An :class:`Inference` whose posterior is a :class:`~bayestl.gaussians.Diagonal`.

    Raises:
        ValueError: num_samples below 1, or an initial_scale that is not positive.

    Reference:
        Blundell et al. 2015, "Weight Uncertainty in Neural Networks", equation 2; the KL here is exact, and the prior
        any of this package's.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
        >>> data = btl.data.arrays(jnp.ones((4, 1)), jnp.full(4, 2.0))
        >>> schedule = optax.exponential_decay(0.05, 400, 0.5)
        >>> inference = btl.infer.mean_field_vi(joint, optax.adam(schedule), num_samples=16)
        >>> fitted = btl.fit(jax.random.key(0), inference, net.params, data, steps=4000, progress=False)
        >>> print(fitted.posterior.mean["w"].round(1), fitted.posterior.variance["w"].round(1))
        [1.6] [0.2]
    """
    check_arguments(mean_field_vi, locals())
    check_sampling(num_samples, initial_scale)
    divergence = default_divergence(joint.prior) if divergence is None else divergence
    return Inference(
        Partial(_init, joint, optimizer, jnp.asarray(initial_scale), allow_weight_decay),
        Partial(_step, joint, optimizer, divergence, num_samples),
        Partial(_posterior),
        joint.check,
        joint.scorer(),
    )


def _init(
    joint: LogJoint, optimizer: Any, initial_scale: jax.Array, allow_weight_decay: bool, key: Key, params: Params
) -> MeanFieldVIState:
    check_params(joint, params)
    mean = _tree.at_least_float32(params)
    log_scale = jax.tree.map(lambda m: jnp.full(m.shape, jnp.log(initial_scale), m.dtype), mean)
    if not allow_weight_decay:
        warn_weight_decay(optimizer, (mean, log_scale))
    return MeanFieldVIState(mean, log_scale, optimizer.init((mean, log_scale)), joint.moving_state)


def _step(
    joint: LogJoint, optimizer: Any, divergence: Divergence, num_samples: Any, key: Key, state: Any, batch: Batch
) -> tuple[MeanFieldVIState, ELBOInfo]:
    def loss(variational: tuple[Params, Params]) -> tuple[jax.Array, Bound]:
        mean, log_scale = variational

        def draw(key_noise: Key) -> Params:
            noise = _tree.normal_like(key_noise, mean)
            return jax.tree.map(lambda m, s, e: m + jnp.exp(s) * e, mean, log_scale, noise)

        q = Diagonal(mean, jax.tree.map(lambda s: jnp.exp(2 * s), log_scale))
        return negative_elbo(key, joint, draw, q, divergence, num_samples, batch, state.net_state)

    variational = (state.mean, state.log_scale)
    (mean, log_scale), opt_state, value, bound = minimise(optimizer, loss, variational, state.opt_state)
    info = ELBOInfo(value, bound.elbo, bound.nll, bound.kl)
    return MeanFieldVIState(mean, log_scale, opt_state, bound.net_state), info


def _posterior(state: MeanFieldVIState) -> Diagonal:
    return Diagonal(state.mean, jax.tree.map(lambda s: jnp.exp(2 * s), state.log_scale))
