"""A log joint as a log density for BlackJAX."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.tree_util import Partial

from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Params


def blackjax_log_density(joint: LogJoint, batch: Batch) -> Callable[[Params], jax.Array]:
    """A function from parameters to their log density, as every sampler of BlackJAX takes it.

    ``params -> joint(params, batch)``, in nats of the full data set, on the parameters' own tree. It is a pytree as
    well: hand it to your jitted function as an argument, and the data are no constants of the compiled program.

    Args:
        joint: the log joint; its network runs deterministically, with the state it holds.
        batch: all data for the posterior itself: ``btl.Batch(data.inputs, data.targets)``.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=5)
        >>> log_density = btl.bridges.blackjax_log_density(joint, btl.Batch(jnp.ones((5, 2)), jnp.ones(5)))
        >>> print(jax.grad(log_density)(net.params)["w"])       # blackjax.nuts(log_density, ...) in the same way
        [5. 5.]
    """
    check_arguments(blackjax_log_density, locals())
    return Partial(_log_density, joint, batch)


def _log_density(joint: LogJoint, batch: Batch, params: Params) -> jax.Array:
    return joint(params, batch)
