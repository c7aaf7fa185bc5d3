"""Stochastic gradient Hamiltonian Monte Carlo: SGD with momentum, friction and the noise that friction calls for."""

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
from bayestl._types import Batch, Inference, Key, NetState, Params, Scalar
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


class SGHMCState(NamedTuple):
    """Attributes:
    params: where the chain is.
    velocity: its velocity, v.
    collected: the draws kept.
    net_state: the network's state.
    count: steps taken, where schedules stand.
    """

    params: Params
    velocity: Any
    collected: Ring
    net_state: NetState
    count: jax.Array


def sghmc(
    joint: LogJoint,
    learning_rate: optax.ScalarOrSchedule,
    *,
    friction: Scalar = 0.1,
    num_samples: int,
    every: int = 1,
    start: int = 0,
    preconditioner: Params | None = None,
) -> Inference:
    """A Markov chain near the posterior with momentum, which carries it further between draws than :func:`sgld` goes.

    ``v <- (1 - alpha) v - lr P grad U(theta) + sqrt(2 alpha lr P) xi``, ``theta <- theta + v``, from v ~ N(0, lr P);
    xi standard normal, U = -log joint in nats of the full data set, with T inside. Stable for lr h < 2 (2 - alpha) on
    curvature h. Gradients are never clipped, which would change the target.

    It is SGD with momentum 1 - alpha and, on a per-datum loss, the learning rate ``lr kappa N / T``. At alpha = 1 it
    is SGLD with step size 2 lr.

    Args:
        joint: the target, tempered as it says.
        learning_rate: lr > 0, or a function of the step.
        friction: alpha, in (0, 1].
        num_samples: K, draws kept on the device: K copies of the parameters in the state. A longer run keeps the last
            K; see :class:`~bayestl.infer.SampleWriter` for more than fit.
        every: steps from one draw to the next, >= 1.
        start: steps before collecting starts, >= 0 (burn-in).
        preconditioner: P, a tree of positive numbers in the structure of the parameters (one per parameter or per
            leaf); None for 1. See :func:`prior_preconditioner`.

    Returns:
        An :class:`Inference` whose posterior is a :class:`~bayestl.posteriors.Chain`. Several chains, one for
        each key: ``fit_many(keys, lambda _: sghmc(...), None, params, data, ...)``.

    Raises:
        ValueError: numbers out of range; a preconditioner that differs from the parameters, or is not positive.

    Warns:
        UserWarning: a learning rate that is unstable under the prior alone.

    Reference:
        Chen, Fox and Guestrin 2014, "Stochastic Gradient Hamiltonian Monte Carlo", equation 15, with their estimate of
        the gradient's noise set to 0.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
        >>> data = btl.data.arrays(jnp.ones((4, 1)), jnp.full(4, 2.0))
        >>> sampler = btl.infer.sghmc(joint, 0.02, friction=0.3, num_samples=5000, every=4, start=100)
        >>> fitted = btl.fit(jax.random.key(0), sampler, net.params, data, steps=20_100, progress=False)
        >>> print(fitted.posterior.draws["w"].mean().round(1), fitted.posterior.draws["w"].var().round(1))
        1.6 0.2
    """
    check_arguments(sghmc, locals())
    schedule = plain_schedule(learning_rate, "learning_rate", every, start)
    return scheduled_sghmc(joint, schedule, friction, num_samples, preconditioner)


def scheduled_sghmc(
    joint: LogJoint, schedule: SamplerSchedule, friction: Scalar, num_samples: int, preconditioner: Params | None
) -> Inference:
    """SGHMC by a schedule of learning rates, noise and draws."""
    check_whole("num_samples", num_samples, 1)
    if _tree.is_concrete(friction) and not 0 < float(friction) <= 1:
        raise ValueError(f"friction is {friction}; it must lie in (0, 1], where 1 is SGLD")
    warn_unstable(joint, schedule, preconditioner, 2 * (2 - friction), "learning_rate")
    # An array, or a whole number would become a part of the program.
    friction = jnp.asarray(friction, jnp.result_type(float))
    return Inference(
        Partial(_init, joint, schedule, preconditioner, int(num_samples)),
        Partial(_step, joint, schedule, friction, preconditioner),
        Partial(as_chain),
        joint.check,
        joint.scorer(),
    )


def _init(
    joint: LogJoint, schedule: SamplerSchedule, preconditioner: Any, num_samples: int, key: Key, params: Params
) -> SGHMCState:
    check_params(joint, params)
    check_preconditioner(preconditioner, params)
    params, count = _tree.at_least_float32(params), jnp.zeros((), jnp.int32)
    rate = jnp.asarray(schedule.step_size(count))
    noise, scale = _tree.normal_like(key, params), as_preconditioner(preconditioner, params)
    velocity = jax.tree.map(lambda x, p: (jnp.sqrt(rate * p) * x).astype(x.dtype), noise, scale)
    return SGHMCState(params, velocity, Ring.empty(params, num_samples), joint.moving_state, count)


def _step(
    joint: LogJoint,
    schedule: SamplerSchedule,
    friction: Any,
    preconditioner: Any,
    key: Key,
    state: SGHMCState,
    batch: Batch,
) -> tuple[SGHMCState, SamplerInfo]:
    key_net, key_noise = jax.random.split(key)
    at_params = energy(joint, state.params, batch, key_net, state.net_state)
    scale = as_preconditioner(preconditioner, state.params)
    rate = jnp.asarray(schedule.step_size(state.count), at_params.loss.dtype)
    noisy = jnp.asarray(schedule.noisy(state.count), rate.dtype)
    width = jnp.sqrt(2 * friction * rate) * noisy

    def pushed(v: jax.Array, g: jax.Array, p: jax.Array, noise: jax.Array) -> jax.Array:
        return ((1 - friction) * v - rate * p * g + width * jnp.sqrt(p) * noise).astype(v.dtype)

    noise = _tree.normal_like(key_noise, state.params)
    velocity = jax.tree.map(pushed, state.velocity, at_params.gradient, scale, noise)
    params = _tree.add(state.params, velocity)
    count = state.count + 1
    collected = state.collected.add(params, schedule.collects(count))
    ratio = rate / (2 * friction) * mean_square(scale, at_params.gradient)
    kinetic = mean_square(jax.tree.map(jnp.reciprocal, scale), velocity) / rate
    info = SamplerInfo(at_params.loss, at_params.nll, at_params.log_prior, rate, ratio, kinetic, noisy)
    return SGHMCState(params, velocity, collected, at_params.net_state, count), info
