"""What variational methods share: the divergence from the prior, and the bound that they raise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, NetState, Params, Posterior, Prior
from bayestl.gaussians import Gaussian, kl_divergence

Divergence = Callable[[Any, Any, Key], jax.Array]
"""``(q, prior, key) -> KL(q || prior)`` in nats, or an unbiased estimate of it. ``q`` has a mean, ``sample``,
``log_prob``, ``trace`` and ``log_det_covariance``, as every Gaussian."""


def monte_carlo_kl(num_samples: int) -> Divergence:
    """An unbiased estimate of KL(q || prior) from ``num_samples`` draws, for priors without a closed form.

    ``1/S sum_s log q(theta_s) - log p(theta_s), theta_s ~ q``

    Args:
        num_samples: S >= 1.
    """
    check_arguments(monte_carlo_kl, locals())
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 draw is needed")
    return Partial(_monte_carlo, num_samples)


def _monte_carlo(num_samples: int, q: Any, prior: Prior, key: Key) -> jax.Array:
    draws = q.sample(key, num_samples)
    return jnp.mean(jax.vmap(lambda params: q.log_prob(params) - prior.log_prob(params))(draws))


def sticking_the_landing(q: Posterior, prior: Prior | None, key: Key) -> jax.Array:
    """``log q(theta) - log p(theta)`` at the very draws that the likelihood sees, with q's own parameters held fixed in
    ``log q``: as ``divergence=`` of a variational method.

    The value is an unbiased estimate of KL(q || prior), and so is its gradient. Noise of the likelihood's gradient and
    of the divergence's cancel as q comes near the posterior: where q is the posterior, the gradient is 0 for every
    draw, and so the last steps need no smaller learning rate. Far from the posterior the closed forms, which are the
    default, have less noise. With several draws per step both are averaged over the same draws.

    Called by itself, as any other divergence, it takes one draw.

    Args:
        q: the approximation.
        prior: of any kind; None for the flat one.
        key: of the draw.

    Reference:
        Roeder, Wu and Duvenaud 2017, "Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational
        Inference", arXiv 1703.09194.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
        >>> data = btl.data.arrays(jnp.ones((4, 1)), jnp.full(4, 2.0))
        >>> landing = btl.infer.sticking_the_landing
        >>> inference = btl.infer.mean_field_vi(joint, optax.adam(0.05), divergence=landing)
        >>> fitted = btl.fit(jax.random.key(0), inference, net.params, data, steps=2000, progress=False)
        >>> print(f"{fitted.posterior.mean['w'][0]:.2f}, {fitted.posterior.variance['w'][0]:.2f}")
        1.60, 0.20
    """
    check_arguments(sticking_the_landing, locals())
    params = jax.tree.map(lambda x: x[0], q.sample(key, 1))
    return _log_ratio(q, prior, params)


def _log_ratio(q: Any, prior: Prior | None, params: Params) -> jax.Array:
    """``log q(theta) - log p(theta)``, differentiable in theta alone and in the prior."""
    log_prior = 0.0 if prior is None else prior.log_prob(params)
    return jax.lax.stop_gradient(q).log_prob(params) - log_prior


def _closed_form(q: Any, prior: Gaussian, key: Key) -> jax.Array:
    return kl_divergence(q, prior)


def _negative_entropy(q: Any, prior: Prior | None, key: Key) -> jax.Array:
    return negative_entropy(_tree.size(q.mean), q.log_det_covariance())


def negative_entropy(size: int, log_det_covariance: jax.Array) -> jax.Array:
    """Of a Gaussian over ``size`` parameters, nats: KL to the flat prior."""
    return -0.5 * (size * (1 + math.log(2 * math.pi)) + log_det_covariance)


def default_divergence(prior: Prior | None) -> Divergence:
    """The closed form for Gaussians, the negative entropy for the flat prior, one draw for all others."""
    if prior is None:
        return _negative_entropy
    return _closed_form if isinstance(prior, Gaussian) else monte_carlo_kl(1)


class _Tempered(NamedTuple):
    """A prior that is not a Gaussian, to the power 1 / T, without its normaliser."""

    prior: Prior
    temperature: Any

    def log_prob(self, params: Params) -> jax.Array:
        return self.prior.log_prob(params) / self.temperature


def tempered(joint: LogJoint) -> Any:
    """The prior's density to the power 1 / T."""
    if joint.prior is None:
        return None
    if isinstance(joint.prior, Gaussian):
        return joint.prior.rescale(joint.temperature)
    return _Tempered(joint.prior, joint.temperature)


def check_sampling(num_samples: int, initial_scale: Any) -> None:
    """The settings that every reparameterised method takes.

    Raises:
        ValueError: a number out of range.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 draw per step is needed")
    if _tree.is_concrete(initial_scale) and not float(initial_scale) > 0:
        raise ValueError(f"initial_scale is {initial_scale}; it is a standard deviation and must be above 0")


class Bound(NamedTuple):
    """The evidence lower bound and its parts: of a batch, in nats."""

    nll: jax.Array
    kl: jax.Array
    elbo: jax.Array
    net_state: NetState


def negative_elbo(
    key: Key,
    joint: LogJoint,
    draw: Callable[[Key], Params],
    q: Any,
    divergence: Divergence,
    num_samples: Any,
    batch: Batch,
    net_state: NetState,
) -> tuple[jax.Array, Bound]:
    """``-ELBO`` per effective datum, and its parts, under reparameterised draws from ``q``.

    Args:
        key: randomness of the draws, of the network, and of the divergence.
        joint: the target.
        draw: key -> parameters, one draw from q, differentiable in what q is made of.
        q: the approximation as ``divergence`` takes it.
        divergence: from the tempered prior.
        num_samples: draws.
        batch: examples.
        net_state: the network's state before them.
    """
    check_arguments(negative_elbo, locals())
    key_noise, key_net, key_kl = jax.random.split(key, 3)
    likelihood_only = joint.replace(prior=None)

    at_draws = divergence is sticking_the_landing

    def of_draw(key_noise: Key, key_net: Key) -> tuple[tuple[jax.Array, jax.Array], Any]:
        params = draw(key_noise)
        _, terms = likelihood_only.loss(params, batch, key=key_net, state=net_state)
        ratio = _log_ratio(q, tempered(joint), params) if at_draws else jnp.zeros(())
        return (terms.nll, ratio), terms.state

    (nlls, kl), net_state = averaged(of_draw, key_noise, key_net, num_samples)
    kl = kl if at_draws else divergence(q, tempered(joint), key_kl)
    elbo = -joint.kappa * joint.num_data * nlls / joint.temperature - kl
    return -elbo / joint.effective_num_data, Bound(nlls, kl, elbo, net_state)


def averaged(function: Callable, key_noise: Key, key_net: Key, num_samples: int) -> tuple[Any, Any]:
    """The mean of ``function`` over draws; the network's state, its second result, is that after the first."""
    if num_samples == 1:
        return function(key_noise, key_net)
    keys = jax.random.split(key_noise, num_samples), jax.random.split(key_net, num_samples)
    values, states = jax.vmap(function)(*keys)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), values), jax.tree.map(lambda x: x[0], states)


def minimise(optimizer: Any, loss: Callable, variational: Any, opt_state: Any) -> tuple[Any, Any, jax.Array, Bound]:
    """One step of an optimizer: the new parameters of q, its new state, and what ``loss`` gave before."""
    (value, bound), grads = jax.value_and_grad(loss, has_aux=True)(variational)
    updates, opt_state = optimizer.update(grads, opt_state, variational)
    return optax.apply_updates(variational, updates), opt_state, value, bound
