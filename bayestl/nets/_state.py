"""What becomes of a network's running statistics while it is trained: frozen, trained, or estimated anew at the end."""

from __future__ import annotations

import dataclasses
import enum
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_key
from bayestl._part import own_state
from bayestl._types import Apply, Data, Key, Net, Params

if TYPE_CHECKING:
    from bayestl._log_joint import LogJoint


class Policy(enum.Enum):
    """What an ``apply`` does with its state when it is given a key. Without one, the state is used and left alone."""

    FROZEN = "frozen"  # running statistics normalise, the state stays as it is
    TRAINED = "trained"  # as the library trains: the batch's statistics normalise, running ones follow
    BATCH = "batch"  # as TRAINED, but the statistics that come back are those of the batch alone


def frozen_state(net: Net) -> Net:
    """``net`` with its running statistics frozen: the state of every ``from_*`` until :func:`trained_state` changes it.

    With a key, dropout and other noise are drawn, batch normalisation uses the running statistics, and the state comes
    back as it was. The choice for transfer: a few dozen target examples give noisy statistics, the log likelihood of
    one example no longer depends on the others in its batch, and training and use see the same network.

    Args:
        key: of the order of the examples, and of dropout during the pass.
        net: network from one of the ``from_*`` functions, or one made from it; one without state comes back as it is.

    Raises:
        TypeError: a network with state whose ``apply`` is not from here, and decides by itself.

    Example:
        >>> from flax import nnx
        >>> net = btl.nets.from_nnx(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
        >>> btl.nets.state_policy(net)
        'frozen'
        >>> _, state = net.apply(net.params, net.state, jnp.ones((5, 3)), jax.random.key(0))
        >>> float(state["mean"][0])
        0.0
    """
    return _converted(net, Policy.FROZEN)


def trained_state(net: Net) -> Net:
    """``net`` with its running statistics trained: with a key, batch normalisation does as its library in training.

    The batch's own statistics normalise, and the running ones move towards them by the layer's momentum. For a network
    that is trained from scratch, or a target with very different inputs and many examples.

    A function of the network rather than an argument of five constructors: networks from all libraries change by the
    same word, wrapped ones too, and the same weights serve under both policies.

    Args:
        net: network from one of the ``from_*`` functions, or one made from it; one without state comes back as it is.

    Raises:
        TypeError: a network with state whose ``apply`` is not from here, and decides by itself.

    Example:
        >>> from flax import nnx
        >>> net = btl.nets.trained_state(btl.nets.from_nnx(nnx.BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))))
        >>> _, state = net.apply(net.params, net.state, jnp.ones((5, 3)), jax.random.key(0))
        >>> print(f"{state['mean'][0]:.1f}")
        0.1
    """
    return _converted(net, Policy.TRAINED)


def state_policy(net: Net | LogJoint) -> str:
    """The name of what happens to the state while training, for a row of results.

    Returns:
        ``"frozen"``, ``"trained"``, or ``"none"`` when there is no state. Who replaces the state afterwards, by
        :func:`reestimate_state`, adds that to the row.

    Raises:
        TypeError: a network with state whose ``apply`` is not from here, and decides by itself.

    Example:
        >>> btl.nets.state_policy(btl.nets.mlp(jax.random.key(0), (3, 8, 1)))
        'none'
    """
    return _policy(net.apply).value if jax.tree.leaves(own_state(net.apply, net.state)) else "none"


def reestimate_state(key: Key, net: Net | LogJoint, params: Params, data: Data, *, batch_size: int) -> Any:
    """The state with every running statistic of batch normalisation estimated anew at ``params``.

    Statistics that moved along with other parameters do not fit an average of iterates or a posterior draw. One pass
    over the data gives those that do::

        s = 1/N sum_b N_b s_b

    with the statistics s_b of batch b, in which batches normalise by their own; with one batch, those of all the data.
    Everything else in the state stays. Put the result in place by ``joint.replace(state=...)`` or
    ``dataclasses.replace(net, state=...)``.

    Reference: Maddox et al. 2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning" (SWAG), algorithm 1
    and its batch-norm update.

    Args:
        net: network, or log joint of one.
        params: the parameters to estimate at; held fixed.
        data: every example is seen once.
        batch_size: examples per batch, in 1, ..., N; the larger the better.

    Raises:
        TypeError: the network's ``apply`` is not from one of the ``from_*`` functions.
        ValueError: ``batch_size`` out of range, or a network without batch normalisation.

    Example:
        >>> from flax import nnx
        >>> net = btl.nets.from_nnx(nnx.BatchNorm(1, rngs=nnx.Rngs(0)))
        >>> data = btl.data.arrays(jnp.arange(4.0)[:, None], jnp.zeros(4))
        >>> state = btl.nets.reestimate_state(jax.random.key(0), net, net.params, data, batch_size=4)
        >>> float(state["mean"][0]), float(state["var"][0])
        (1.5, 1.25)
    """
    check_key("reestimate_state", key)
    if not jax.tree.leaves(own_state(net.apply, net.state)):
        raise ValueError("the network has no state, so that nothing can be re-estimated")
    data.check_batch_size(batch_size)
    apply = _with_policy(net.apply, Policy.BATCH)
    key_order, key_noise = jax.random.split(key)
    mean, num_read = net.state, 0
    for step in range(-(-data.num_examples // batch_size)):
        # The last batch is filled up with examples that were seen already.
        size = min(batch_size, data.num_examples - num_read)
        inputs = jax.tree.map(lambda x: x[:size], data.batch(key_order, step, batch_size).inputs)  # noqa: B023
        num_read += size
        state = _batch_state(apply, params, net.state, inputs, jax.random.fold_in(key_noise, step))
        mean = state if step == 0 else jax.tree.map(partial(_moved, size / num_read), mean, state)
    return mean


def updated(policy: Policy, state: Any, new: Any, statistics: set[str], library: str) -> Any:
    """The state that an ``apply`` returns after a call with a key left it at ``new``.

    Args:
        policy: of the call.
        state: before the call.
        new: after it, in the structure of ``state``.
        statistics: paths of the running statistics of batch normalisation.
        library: for the error message.
    """
    if policy is Policy.FROZEN:
        return state
    if policy is Policy.TRAINED:
        return new
    if not statistics:
        raise ValueError(
            f"the network has no batch normalisation of {library}'s, so that nothing can be re-estimated; its state "
            f"holds {_tree.shown(_tree.paths(state))}"
        )
    new_leaves = _tree.by_paths(new)
    return jax.tree_util.tree_map_with_path(
        lambda path, old: new_leaves[name] if (name := _tree.path_string(path)) in statistics else old, state
    )


def _moved(weight: float, mean: jax.Array, new: jax.Array) -> jax.Array:
    """A running mean; what does not change stays exactly as it is."""
    return mean + weight * (new - mean) if jnp.issubdtype(mean.dtype, jnp.inexact) else new


@partial(jax.jit, static_argnums=0)
def _batch_state(apply: Apply, params: Params, state: Any, inputs: Any, key: Key) -> Any:
    return apply(params, state, inputs, key)[1]


def _converted(net: Net, policy: Policy) -> Net:
    if not jax.tree.leaves(own_state(net.apply, net.state)):
        return net
    return dataclasses.replace(net, apply=_with_policy(net.apply, policy))


def _inner(apply: Any) -> Any:
    """What a wrapper wraps: its field ``apply``."""
    inner = getattr(apply, "apply", None)
    if inner is None or not dataclasses.is_dataclass(apply):
        raise TypeError(
            f"net.apply is {type(apply).__name__}, which decides by itself what becomes of its state; make the network "
            "with one of the from_* functions of bayestl.nets, or write into apply what you want"
        )
    return inner


def _with_policy(apply: Any, policy: Policy) -> Any:
    if isinstance(getattr(apply, "policy", None), Policy):
        return dataclasses.replace(apply, policy=policy)
    return dataclasses.replace(apply, apply=_with_policy(_inner(apply), policy))


def _policy(apply: Any) -> Policy:
    policy = getattr(apply, "policy", None)
    return policy if isinstance(policy, Policy) else _policy(_inner(apply))
