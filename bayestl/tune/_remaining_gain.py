"""How far a fit is from its mode."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree, likelihoods
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Params
from bayestl.passes import whole
from bayestl.tune._rate import through


def remaining_gain(joint: LogJoint, params: Params, data: Data | Batch, *, iterations: int = 20) -> float:
    """Nats by which the log joint would still grow if the linearised network went to its mode: 0 at a mode.

    ``1/2 g^T (S0^-1 + H)^-1 g``, g the gradient of the log joint and H the GGN: the gradient in units of the posterior.
    Conjugate gradients in units of the prior reach it from below, by one product with H each. Divided by the number of
    examples it says how much of a fit is due to where its steps ended, and not to its prior.

    Args:
        joint: with a Gaussian prior.
        params: where the fit has come to.
        data: in memory.
        iterations: products with H.

    Raises:
        TypeError: a prior that is no Gaussian; data that are not in memory.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=1)
        >>> batch = btl.Batch(jnp.ones((1, 1)), jnp.array([2.0]))
        >>> print(btl.tune.remaining_gain(joint, net.params, batch))  # from -2 at w = 0 to -1 at the mode, w = 1
        1.0
    """
    check_arguments(remaining_gain, locals())
    prior: Any = joint.prior
    if not hasattr(prior, "covariance_mv"):
        raise TypeError(f"the prior is a {type(prior).__name__}; a mode is measured in units of a Gaussian prior")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; at least 1 is needed")
    batch = whole(data)
    arrays, static = partition(joint)
    params = _tree.at_least_float32(params)
    # One dispatch per product: convolutions are slow inside of loops on CPUs.
    rest = gradient(static, arrays, params, batch)
    direction = preconditioned = prior.covariance_mv(rest)
    size = first = float(_tree.vdot(rest, preconditioned))
    gain = 0.0
    for _ in range(iterations):
        if not size > 1e-12 * first:
            break
        product = _product(static, arrays, params, direction, batch)
        step = size / float(_tree.vdot(direction, product))
        gain += 0.5 * step * size
        rest = _added(rest, product, -step)
        preconditioned = prior.covariance_mv(rest)
        size, before = float(_tree.vdot(rest, preconditioned)), size
        direction = _added(preconditioned, direction, size / before)
    return gain


@partial(jax.jit, static_argnums=0)
def gradient(static: Static, arrays: list[Any], params: Params, batch: Batch) -> Params:
    """Of the log joint; every example counts as often as its weight says."""
    joint = static.combine(arrays)
    return jax.grad(lambda params: _log_joint(joint, params, batch))(params)


@partial(jax.jit, static_argnums=0)
def _product(static: Static, arrays: list[Any], params: Params, v: Params, batch: Batch) -> Params:
    """``(S0^-1 + H) v``."""
    joint = static.combine(arrays)

    def outputs_at(params: Params) -> Any:
        return _tree.at_least_float32(joint.outputs(params, batch.inputs)[0])

    outputs, pull_back = jax.vjp(outputs_at, params)
    moved = jax.jvp(outputs_at, (params,), (v,))[1]
    root = likelihoods.hessian_root(joint.likelihood, outputs, batch.targets)
    weights = joint.kappa * jnp.asarray(1.0 if batch.weights is None else batch.weights)
    bent = jax.tree.map(lambda x: x * jnp.reshape(weights, (-1, *[1] * (x.ndim - 1))), through(root, moved))
    return _tree.add(joint.prior.precision_mv(v), pull_back(bent)[0])


def _log_joint(joint: LogJoint, params: Params, batch: Batch) -> jax.Array:
    weights = 1.0 if batch.weights is None else batch.weights
    explained = joint.kappa * jnp.sum(weights * joint.log_likelihoods(params, batch))
    prior: Any = joint.prior
    return explained - 0.5 * prior.squared_mahalanobis(params)


@jax.jit
def _added(x: Params, y: Params, factor: Any) -> Params:
    return jax.tree.map(lambda x, y: x + factor * y, x, y)
