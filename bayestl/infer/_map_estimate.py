"""Maximum a posteriori: the mode of the posterior, by any optax transformation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Inference, Key, NetState, Params
from bayestl.infer._checks import check_params, warn_weight_decay
from bayestl.posteriors import Point


class MAPState(NamedTuple):
    """Attributes:
    params: current parameters.
    opt_state: the optimizer's state.
    net_state: the network's state.
    """

    params: Params
    opt_state: Any
    net_state: NetState


class MAPInfo(NamedTuple):
    """Attributes:
    objective: the loss, ``nll - log_prior / (kappa N)``, nats per effective datum.
    nll: mean negative log likelihood of the batch, nats per example.
    log_prior: log prior up to a constant, nats.
    """

    objective: jax.Array
    nll: jax.Array
    log_prior: jax.Array


def map_estimate(
    joint: LogJoint, optimizer: optax.GradientTransformation, *, allow_weight_decay: bool = False
) -> Inference:
    """The posterior mode, ``argmax_theta log P(D | theta) + log P(theta)``.

    The prior is in the loss, whatever the optimizer, so that the stationary point is the mode under Adam too. With
    ``prior=None`` this is plain fine-tuning, step for step.

    Args:
        joint: what is maximised.
        optimizer: any optax transformation, bare.
        allow_weight_decay: do not warn when the optimizer decays weights although a prior is set.

    Returns:
        An :class:`Inference` whose posterior is a :class:`Point`.

    Warns:
        UserWarning: the optimizer moves parameters when the gradient is zero, which is a second prior.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=2)
        >>> data = btl.data.arrays(jnp.ones((2, 1)), jnp.array([1.0, 3.0]))
        >>> inference = btl.infer.map_estimate(joint, optax.sgd(0.5))
        >>> fitted = btl.fit(jax.random.key(0), inference, net.params, data, steps=50, progress=False)
        >>> print(fitted.params["w"].round(3))
        [2.]
    """
    check_arguments(map_estimate, locals())
    return Inference(
        Partial(_init, joint, optimizer, allow_weight_decay),
        Partial(_step, joint, optimizer),
        Partial(_posterior),
        joint.check,
        joint.scorer(),
    )


def _init(joint: LogJoint, optimizer: Any, allow_weight_decay: bool, key: Key, params: Params) -> MAPState:
    check_params(joint, params)
    params = _tree.at_least_float32(params)
    if joint.prior is not None and not allow_weight_decay:
        warn_weight_decay(optimizer, params)
    return MAPState(params, optimizer.init(params), joint.moving_state)


def _step(joint: LogJoint, optimizer: Any, key: Key, state: MAPState, batch: Batch) -> tuple[MAPState, MAPInfo]:
    def loss(params):
        return joint.loss(params, batch, key=key, state=state.net_state)

    # Here and not in the constructor: it makes a new function each time, and equal methods share one program.
    optimizer = optax.with_extra_args_support(optimizer)
    (value, terms), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(
        grads, state.opt_state, state.params, value=value, grad=grads, value_fn=lambda params: loss(params)[0]
    )
    params = optax.apply_updates(state.params, updates)
    return MAPState(params, opt_state, terms.state), MAPInfo(value, terms.nll, terms.log_prior)


def _posterior(state: MAPState) -> Point:
    return Point(state.params)
