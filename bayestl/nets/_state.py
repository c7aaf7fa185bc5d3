"""What happens to the running statistics of a network during training: frozen, trained, or re-estimated at the end."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any

import jax

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._part import own_state
from bayestl._types import Net

if TYPE_CHECKING:
    from bayestl._log_joint import LogJoint


class Policy(enum.Enum):
    """What an ``apply`` does with its state when it is given a key. Without one, the state is used and left alone."""

    FROZEN = "frozen"  # running statistics normalise, the state stays as it is
    TRAINED = "trained"  # as the library trains: the batch's statistics normalise, running ones follow
    BATCH = "batch"  # as TRAINED, but the statistics that come back are those of the batch alone


def frozen_state(net: Net) -> Net:
    """``net`` with its running statistics frozen: the state of every ``from_*`` until :func:`trained_state` changes it.

    With a key, dropout and other noise are drawn, batch normalisation uses the running statistics, and the state does
    not change. This suits transfer: a few dozen target examples give noisy statistics, the log likelihood of
    one example no longer depends on the others in its batch, and training and use see the same network.

    Args:
        net: network from one of the ``from_*`` functions, or one made from it; one without state comes back as it is.

    Raises:
        TypeError: a network with state whose ``apply`` was not made by this package.

    Example:
        >>> from flax import nnx
        >>> net = btl.nets.from_nnx(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
        >>> btl.nets.state_policy(net)
        'frozen'
        >>> _, state = net.apply(net.params, net.state, jnp.ones((5, 3)), jax.random.key(0))
        >>> float(state["mean"][0])
        0.0
    """
    check_arguments(frozen_state, locals())
    return _converted(net, Policy.FROZEN)


def trained_state(net: Net) -> Net:
    """``net`` with its running statistics trained: with a key, batch normalisation is in training mode.

    The batch's own statistics normalise, and the running ones move towards them by the layer's momentum. For a network
    that is trained from scratch, or a target with very different inputs and many examples.

    It works for networks from all libraries and for wrapped ones, and the weights can be used under either policy.

    Args:
        net: network from one of the ``from_*`` functions, or one made from it; one without state comes back as it is.

    Raises:
        TypeError: a network with state whose ``apply`` was not made by this package.

    Example:
        >>> from flax import nnx
        >>> net = btl.nets.trained_state(btl.nets.from_nnx(nnx.BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))))
        >>> _, state = net.apply(net.params, net.state, jnp.ones((5, 3)), jax.random.key(0))
        >>> print(f"{state['mean'][0]:.1f}")
        0.1
    """
    check_arguments(trained_state, locals())
    return _converted(net, Policy.TRAINED)


def state_policy(net: Net | LogJoint) -> str:
    """The name of what happens to the state while training, for a row of results.

    Returns:
        ``"frozen"``, ``"trained"``, or ``"none"`` when there is no state. Who replaces the state afterwards, by
        :func:`reestimate_state`, adds that to the row.

    Raises:
        TypeError: a network with state whose ``apply`` was not made by this package.

    Example:
        >>> btl.nets.state_policy(btl.nets.mlp(jax.random.key(0), (3, 8, 1)))
        'none'
    """
    check_arguments(state_policy, locals())
    return _policy(net.apply).value if jax.tree.leaves(own_state(net.apply, net.state)) else "none"


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
    after = _tree.by_paths(new)
    return jax.tree_util.tree_map_with_path(
        lambda path, old: after[name] if (name := _tree.path_string(path)) in statistics else old, state
    )


def _converted(net: Net, policy: Policy) -> Net:
    if not jax.tree.leaves(own_state(net.apply, net.state)):
        return net
    return dataclasses.replace(net, apply=with_policy(net.apply, policy))


def _inner(apply: Any) -> Any:
    """What a wrapper wraps: its field ``apply``."""
    inner = getattr(apply, "apply", None)
    if inner is None or not dataclasses.is_dataclass(apply):
        raise TypeError(
            f"net.apply is {type(apply).__name__}, which decides by itself what becomes of its state; make the network "
            "with one of the from_* functions of bayestl.nets, or write into apply what you want"
        )
    return inner


def with_policy(apply: Any, policy: Policy) -> Any:
    if isinstance(getattr(apply, "policy", None), Policy):
        return dataclasses.replace(apply, policy=policy)
    return dataclasses.replace(apply, apply=with_policy(_inner(apply), policy))


def _policy(apply: Any) -> Policy:
    policy = getattr(apply, "policy", None)
    return policy if isinstance(policy, Policy) else _policy(_inner(apply))
