"""The evidence of a model by the Laplace approximation."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Key, Params
from bayestl.curvature import Builder, Kind, ggn
from bayestl.infer._laplace import DENSE, checked, power
from bayestl.passes import Batches


def log_evidence(
    key: Key,
    joint: LogJoint,
    params: Params,
    data: Data | Batch,
    *,
    curvature: Builder = DENSE,
    kind: Kind = ggn,
    batch_size: int | None = 64,
) -> jax.Array:
    """The log marginal likelihood ``log p(D)`` by Laplace's method, nats: how well the prior foresaw the data.

    ``kappa/T log p(D | theta*) - 1/(2T) (theta* - mu)^T Sigma0^-1 (theta* - mu) - 1/2 log det (I + kappa Sigma0 H)``

    At kappa = T = 1 this is ``log p(D, theta*) + D/2 log 2 pi + 1/2 log det Sigma_posterior``, without the difference
    of two log determinants that float32 could not resolve. Elsewhere it is the normaliser
    ``log int p(D | theta)^(kappa/T) N(theta; mu, T Sigma0) dtheta``, which the ELBO of :func:`mean_field_vi` bounds
    from below. Exact for linear networks under a normal likelihood.

    Differentiable, with ``params`` held fixed, in the leaves of the prior (its scales) and of the likelihood (the
    noise; through H too), as in ``jax.grad(lambda prior: log_evidence(key, joint.replace(prior=prior), ...))``. At a
    mode the log joint has no gradient in ``params``, so that only the change of H along with the mode is left out.

    Args:
        key: of sampled labels and of Lanczos' start.
        joint: the target; its prior a Gaussian.
        params: the mode theta*, under this very prior and noise.
        data: all the training data, in memory or a stream; or one :class:`~bayestl.Batch`, whose weights count.
        curvature: the structure of H. With ``curvature.low_rank`` the evidence is an upper bound: what is left out of H
            is not paid for.
        kind: which curvature.
        batch_size: examples seen at once; None for all.

    Raises:
        ValueError: the flat prior, which has no evidence; whatever :func:`laplace` raises.

    Reference:
        MacKay 1992, "Bayesian Interpolation", equations 4.1 to 4.3; for networks Immer et al. 2021, "Scalable Marginal
        Likelihood Estimation for Model Selection in Deep Learning", equation 7.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=1)
        >>> data = btl.data.arrays(jnp.ones((1, 1)), jnp.array([2.0]))
        >>> value = btl.infer.log_evidence(jax.random.key(0), joint, {"w": jnp.array([1.0])}, data)
        >>> print(f"{value:.4f}, and from N(2; 0, 2): {jax.scipy.stats.norm.logpdf(2.0, 0.0, 2.0**0.5):.4f}")
        -2.2655, and from N(2; 0, 2): -2.2655
    """
    check_arguments(log_evidence, locals(), skip=("data",))
    joint, params, passes, check = checked(joint, params, data, batch_size)
    if joint.prior is None:
        raise ValueError("the flat prior is improper, so the evidence is undefined; give a Gaussian prior")
    arrays, static = partition((joint, curvature, kind))
    return passes.run(_log_evidence, static, arrays, key, params, passes, check=check)


def total_log_likelihood(joint: LogJoint, params: Params, passes: Batches) -> jax.Array:
    """``log p(D | theta)``, the sum over the examples, each as often as its weight says."""

    def one(key: Key, batch: Batch) -> jax.Array:
        return jnp.sum(jnp.asarray(batch.weights) * joint.log_likelihoods(params, batch))

    return passes.sum(jax.random.key(0), one)


@partial(jax.jit, static_argnums=0)
def _log_evidence(static: Static, arrays: list[Any], key: Key, params: Params, passes: Batches) -> jax.Array:
    joint, curvature, kind = static.combine(arrays)
    structure = curvature(key, joint, params, passes, kind, passes.batch_size)
    weight = power(joint, passes)
    explained = weight * total_log_likelihood(joint, params, passes)
    paid = joint.temperature * structure.log_det_ratio(joint.prior, weight)
    return (explained - 0.5 * (joint.prior.squared_mahalanobis(params) + paid)) / joint.temperature
