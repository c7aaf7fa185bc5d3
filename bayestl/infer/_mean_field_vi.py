"""Mean-field variational inference: the best Gaussian with independent parameters around any prior."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Inference, Key, Params, Scalar
from bayestl.gaussians import Diagonal, Gaussian, kl_divergence
from bayestl.infer._checks import check_params, warn_weight_decay

Divergence = Callable[[Diagonal, Any, Key], jax.Array]
"""``(q, prior, key) -> KL(q || prior)`` in nats, or an unbiased estimate of it."""


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
    net_state: Any


class MeanFieldVIInfo(NamedTuple):
    """Attributes:
    objective: what is minimised, ``-ELBO`` per effective datum: at T = 1 ``nll + kl / (kappa N)``.
    nll: mean negative log likelihood of the batch under draws from q, nats per example.
    kl: KL(q || prior), the prior tempered by T, nats.
    elbo: estimate of the evidence lower bound, nats of the full data set, up is good.
    """

    objective: jax.Array
    nll: jax.Array
    kl: jax.Array
    elbo: jax.Array


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
            of q for the flat prior, and :func:`monte_carlo_kl` for all others.
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
        >>> fitted = btl.fit(inference, jax.random.key(0), net.params, data, steps=4000, progress=False)
        >>> print(fitted.posterior.mean["w"].round(1), fitted.posterior.variance()["w"].round(1))
        [1.6] [0.2]
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 draw per step is needed")
    if _tree.is_concrete(initial_scale) and not float(initial_scale) > 0:
        raise ValueError(f"initial_scale is {initial_scale}; it is a standard deviation and must be above 0")
    divergence = _default_divergence(joint.prior) if divergence is None else divergence
    return Inference(
        Partial(_init, joint, optimizer, jnp.asarray(initial_scale), allow_weight_decay),
        Partial(_step, joint, optimizer, divergence, num_samples),
        Partial(_posterior),
        joint.check,
    )


def monte_carlo_kl(num_samples: int) -> Divergence:
    """An unbiased estimate of KL(q || prior) from ``num_samples`` draws, for priors without a closed form.

    ``1/S sum_s log q(theta_s) - log p(theta_s), theta_s ~ q``

    Args:
        num_samples: S >= 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 draw is needed")
    return Partial(_monte_carlo, num_samples)


def _monte_carlo(num_samples: int, q: Diagonal, prior: Any, key: Key) -> jax.Array:
    draws = q.sample(key, num_samples)
    return jnp.mean(jax.vmap(lambda params: q.log_prob(params) - prior.log_prob(params))(draws))


def _closed_form(q: Diagonal, prior: Any, key: Key) -> jax.Array:
    return kl_divergence(q, prior)


def _negative_entropy(q: Diagonal, prior: Any, key: Key) -> jax.Array:
    return -0.5 * (_tree.size(q.mean) * (1 + math.log(2 * math.pi)) + q.log_det_covariance())


def _default_divergence(prior: Any) -> Divergence:
    if prior is None:
        return _negative_entropy
    return _closed_form if isinstance(prior, Gaussian) else monte_carlo_kl(1)


class _Tempered(NamedTuple):
    """A prior that is no Gaussian, to the power 1 / T, without its normaliser."""

    prior: Any
    temperature: Any

    def log_prob(self, params: Params) -> jax.Array:
        return self.prior.log_prob(params) / self.temperature


def _tempered(joint: LogJoint) -> Any:
    if joint.prior is None:
        return None
    if isinstance(joint.prior, Gaussian):
        return joint.prior.rescale(joint.temperature)
    return _Tempered(joint.prior, joint.temperature)


def _init(
    joint: LogJoint, optimizer: Any, initial_scale: jax.Array, allow_weight_decay: bool, key: Key, params: Params
) -> MeanFieldVIState:
    check_params(joint, params)
    mean = _tree.at_least_float32(params)
    log_scale = jax.tree.map(lambda m: jnp.full(m.shape, jnp.log(initial_scale), m.dtype), mean)
    if not allow_weight_decay:
        warn_weight_decay(optimizer, (mean, log_scale))
    return MeanFieldVIState(mean, log_scale, optimizer.init((mean, log_scale)), joint.state)


def _step(
    joint: LogJoint, optimizer: Any, divergence: Divergence, num_samples: Any, key: Key, state: Any, batch: Batch
) -> tuple[MeanFieldVIState, MeanFieldVIInfo]:
    key_noise, key_net, key_kl = jax.random.split(key, 3)
    likelihood_only, prior = joint.replace(prior=None), _tempered(joint)

    def loss(variational: tuple[Params, Params]) -> tuple[jax.Array, Any]:
        mean, log_scale = variational

        def nll(key_noise: Key, key_net: Key) -> tuple[jax.Array, Any]:
            noise = _tree.normal_like(key_noise, mean)
            params = jax.tree.map(lambda m, s, e: m + jnp.exp(s) * e, mean, log_scale, noise)
            _, terms = likelihood_only.loss(params, batch, key=key_net, state=state.net_state)
            return terms.nll, terms.state

        nlls, net_state = _averaged(nll, key_noise, key_net, num_samples)
        kl = divergence(Diagonal(mean, jax.tree.map(lambda s: jnp.exp(2 * s), log_scale)), prior, key_kl)
        elbo = -joint.kappa * joint.num_data * nlls / joint.temperature - kl
        effective = jnp.where(joint.kappa > 0, joint.kappa, 1.0) * joint.num_data / joint.temperature
        return -elbo / effective, (nlls, kl, elbo, net_state)

    variational = (state.mean, state.log_scale)
    (value, (nll, kl, elbo, net_state)), grads = jax.value_and_grad(loss, has_aux=True)(variational)
    updates, opt_state = optimizer.update(grads, state.opt_state, variational)
    mean, log_scale = cast("tuple[Params, Params]", optax.apply_updates(variational, updates))
    return MeanFieldVIState(mean, log_scale, opt_state, net_state), MeanFieldVIInfo(value, nll, kl, elbo)


def _averaged(nll: Callable, key_noise: Key, key_net: Key, num_samples: int) -> tuple[jax.Array, Any]:
    """The mean over draws; the network's state is that after the first."""
    if num_samples == 1:
        return nll(key_noise, key_net)
    values, states = jax.vmap(nll)(jax.random.split(key_noise, num_samples), jax.random.split(key_net, num_samples))
    return jnp.mean(values), jax.tree.map(lambda x: x[0], states)


def _posterior(state: MeanFieldVIState) -> Diagonal:
    return Diagonal(state.mean, jax.tree.map(lambda s: jnp.exp(2 * s), state.log_scale))
