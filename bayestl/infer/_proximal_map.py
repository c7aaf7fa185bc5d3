"""Maximum a posteriori under a sharp prior: gradient steps on the likelihood, exact proximal steps on the prior."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Inference, Key, NetState, Params, Scalar
from bayestl.gaussians import Gaussian
from bayestl.infer._checks import as_schedule, check_params
from bayestl.infer._map_estimate import MAPInfo
from bayestl.posteriors import Point


class ProximalMAPState(NamedTuple):
    """Attributes:
    params: current parameters.
    velocity: the heavy ball's velocity, ``-sum_i momentum^i rate_(t-i) gradient_(t-i)``.
    reach: the same sum of the rates alone: the learning rate at which the prior acts in this step.
    net_state: the network's state.
    count: number of steps taken, where the learning-rate schedule stands.
    """

    params: Params
    velocity: Any
    reach: jax.Array
    net_state: NetState
    count: jax.Array


def proximal_map(joint: LogJoint, learning_rate: optax.ScalarOrSchedule, *, momentum: Scalar = 0.0) -> Inference:
    """The posterior mode under a prior too sharp for a gradient step.

    SGD with heavy ball on the likelihood alone, then the exact proximal step on the prior:
    ``theta <- theta - s (Sigma + s I)^-1 (theta - mu)``, ``s_t = sum_i momentum^i learning_rate_(t-i) / (kappa N)``,
    which is ``learning_rate / ((1 - momentum) kappa N)`` at a constant rate. Stable whatever the prior's precision, and
    its fixed point is the mode, as for :func:`map_estimate`: under any schedule, since s remembers past rates exactly
    as the velocity does. A low-rank prior costs O(D k^2) a step here, against O(D k) in the loss.

    Args:
        joint: what is maximised; its prior must be a Gaussian and its kappa above 0.
        learning_rate: of the per-datum loss; a number or an optax schedule.
        momentum: in [0, 1).

    Raises:
        TypeError: a prior that is not a Gaussian.
        ValueError: kappa = 0, or a momentum outside [0, 1).
    """
    check_arguments(proximal_map, locals())
    if not isinstance(joint.prior, Gaussian):
        raise TypeError(
            f"proximal_map needs a Gaussian prior and got {type(joint.prior).__name__}; use map_estimate without one"
        )
    if _tree.is_concrete(joint.kappa) and not float(joint.kappa) > 0:
        raise ValueError("proximal_map needs kappa > 0: its steps are counted in effective data; use map_estimate")
    if _tree.is_concrete(momentum) and not 0 <= float(momentum) < 1:
        raise ValueError(f"momentum is {momentum}; it must lie in [0, 1)")
    schedule = as_schedule(learning_rate)
    step = Partial(_step, joint, schedule, momentum)
    return Inference(Partial(_init, joint), step, Partial(_posterior), joint.check, joint.scorer())


def _init(joint: LogJoint, key: Key, params: Params) -> ProximalMAPState:
    check_params(joint, params)
    params = _tree.at_least_float32(params)
    reach = jnp.zeros((), jnp.result_type(float))
    return ProximalMAPState(params, _tree.zeros_like(params), reach, joint.moving_state, jnp.zeros((), jnp.int32))


def _step(
    joint: LogJoint, schedule: Any, momentum: Any, key: Key, state: ProximalMAPState, batch: Batch
) -> tuple[ProximalMAPState, MAPInfo]:
    likelihood_only = joint.replace(prior=None)

    def loss(params):
        return likelihood_only.loss(params, batch, key=key, state=state.net_state)

    (nll, terms), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    rate = schedule(state.count)
    # The scalars may be float64 where the parameters are float32.
    velocity = jax.tree.map(lambda v, g: (momentum * v - rate * g).astype(v.dtype), state.velocity, grads)
    params = _tree.add(state.params, velocity)
    reach = jnp.asarray(momentum * state.reach + rate, state.reach.dtype)
    strength = reach / (joint.kappa * joint.num_data)
    prior: Any = joint.prior  # a Gaussian, as ``init`` has checked
    pull = prior.inflate(strength).precision_mv(_tree.sub(params, prior.mean))
    params = jax.tree.map(lambda t, p: (t - strength * p).astype(t.dtype), params, pull)
    log_prior = joint.log_prior_energy(state.params)
    objective = nll - log_prior / (joint.kappa * joint.num_data)
    new_state = ProximalMAPState(params, velocity, reach, terms.state, state.count + 1)
    return new_state, MAPInfo(objective, terms.nll, log_prior)


def _posterior(state: ProximalMAPState) -> Point:
    return Point(state.params)
