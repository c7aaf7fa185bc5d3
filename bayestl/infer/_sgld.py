"""Stochastic gradient Langevin dynamics: a chain of noisy gradient steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._infos import SamplerInfo
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Inference, Key, NetState, Params
from bayestl.infer._checks import check_params
from bayestl.infer._collected import as_chain
from bayestl.infer._sampling import (
    SamplerSchedule,
    as_preconditioner,
    check_preconditioner,
    check_whole,
    energy,
    mean_square,
    plain_schedule,
    warn_unstable,
)
from bayestl.training import Ring


class SGLDState(NamedTuple):
    """Attributes:
    params: where the chain is.
    collected: the draws kept.
    net_state: the network's state.
    count: steps taken, where schedules stand.
    """

    params: Params
    collected: Ring
    net_state: NetState
    count: jax.Array


def sgld(
    joint: LogJoint,
    step_size: optax.ScalarOrSchedule,
    *,
    num_samples: int,
    every: int = 1,
    start: int = 0,
    preconditioner: Params | None = None,
) -> Inference:
    """A Markov chain near the posterior, at the cost of SGD: gradient steps, each with noise.

    ``theta <- theta - eps/2 P grad U(theta) + sqrt(eps P) xi``, xi standard normal, U = -log joint in nats of the full
    data set, with T inside. On a direction of curvature h the stationary variance is ``1 / (h (1 - eps h / 4))`` with
    full batches: too wide by the factor that ``temperature`` of the infos shows, more so with small batches, and no
    distribution at all for eps h >= 4. Gradients are never clipped, which would change the target.

    As the learning rate of a per-datum loss a step size is ``eps kappa N / (2 T)``.

    Args:
        joint: the target, tempered as it says.
        step_size: eps > 0, or a function of the step.
        num_samples: K, draws kept on the device: K copies of the parameters in the state. A longer run keeps the last
            K; see :class:`~bayestl.infer.SampleWriter` for more than fit.
        every: steps from one draw to the next, >= 1.
        start: steps before collecting starts, >= 0 (burn-in).
        preconditioner: P, a tree of positive numbers in the structure of the parameters (one per parameter or per
            leaf); None for 1. See :func:`prior_preconditioner`.

    Returns:
        An :class:`Inference` whose posterior is a :class:`~bayestl.posteriors.Chain`. Several chains, one for
        each key: ``fit_many(keys, lambda _: sgld(...), None, params, data, ...)``.

    Raises:
        ValueError: numbers out of range; a preconditioner that differs from the parameters, or is not positive.

    Warns:
        UserWarning: a step size that is unstable under the prior alone.

    Reference:
        Welling and Teh 2011, "Bayesian Learning via Stochastic Gradient Langevin Dynamics", equation 4.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
        >>> data = btl.data.arrays(jnp.ones((4, 1)), jnp.full(4, 2.0))
        >>> sampler = btl.infer.sgld(joint, 0.05, num_samples=5000, every=4, start=100)
        >>> fitted = btl.fit(jax.random.key(0), sampler, net.params, data, steps=20_100, progress=False)
        >>> print(fitted.posterior.draws["w"].mean().round(1), fitted.posterior.draws["w"].var().round(1))
        1.6 0.2
    """
    check_arguments(sgld, locals(), skip=("every",))
    return scheduled_sgld(joint, plain_schedule(step_size, "step_size", every, start), num_samples, preconditioner)


def scheduled_sgld(
    joint: LogJoint, schedule: SamplerSchedule, num_samples: int, preconditioner: Params | None
) -> Inference:
    """SGLD by a schedule of step sizes, noise and draws."""
    check_whole("num_samples", num_samples, 1)
    warn_unstable(joint, schedule, preconditioner, 4.0, "step_size")
    return Inference(
        Partial(_init, joint, preconditioner, int(num_samples)),
        Partial(_step, joint, schedule, preconditioner),
        Partial(as_chain),
        joint.check,
        joint.scorer(),
    )


def _init(joint: LogJoint, preconditioner: Any, num_samples: int, key: Key, params: Params) -> SGLDState:
    check_params(joint, params)
    check_preconditioner(preconditioner, params)
    params = _tree.at_least_float32(params)
    return SGLDState(params, Ring.empty(params, num_samples), joint.moving_state, jnp.zeros((), jnp.int32))


def _step(
    joint: LogJoint, schedule: SamplerSchedule, preconditioner: Any, key: Key, state: SGLDState, batch: Batch
) -> tuple[SGLDState, SamplerInfo]:
    key_net, key_noise = jax.random.split(key)
    at_params = energy(joint, state.params, batch, key_net, state.net_state)
    scale = as_preconditioner(preconditioner, state.params)
    eps = jnp.asarray(schedule.step_size(state.count), at_params.loss.dtype)
    noisy = jnp.asarray(schedule.noisy(state.count), eps.dtype)
    width = jnp.sqrt(eps) * noisy

    def moved(x: jax.Array, g: jax.Array, p: jax.Array, noise: jax.Array) -> jax.Array:
        return (x - 0.5 * eps * p * g + width * jnp.sqrt(p) * noise).astype(x.dtype)

    noise = _tree.normal_like(key_noise, state.params)
    params = jax.tree.map(moved, state.params, at_params.gradient, scale, noise)
    count = state.count + 1
    collected = state.collected.add(params, schedule.collects(count))
    ratio = 0.25 * eps * mean_square(scale, at_params.gradient)
    info = SamplerInfo(at_params.loss, at_params.nll, at_params.log_prior, eps, ratio, 1 + ratio, noisy)
    return SGLDState(params, collected, at_params.net_state, count), info
