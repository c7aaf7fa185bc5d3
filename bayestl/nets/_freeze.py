"""A network of which a part is constant: no prior, no gradient, no optimizer state."""

from __future__ import annotations

from collections.abc import Sequence

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._part import PartApply, with_fixed
from bayestl._types import Net


def freeze(net: Net, patterns: str | Sequence[str]) -> Net:
    """``net`` with some of its parameters as constants, which have no prior and are not trained.

    A narrow prior also holds parameters near the source, but they still have gradients, optimizer state and a share in
    the posterior; frozen parameters cost a forward pass only. They move from ``params`` (which holds ``None`` in their
    place) to the state. If the whole body is frozen, training is faster on its features, computed once by
    :func:`bayestl.data.precompute`. They are held once: a run carries the state with ``None`` in their place, and all
    members of ``fit_many`` share them.

    Args:
        net: any network.
        patterns: path patterns of what is frozen, e.g. ``["stem/**", "layer1/**"]``.

    Raises:
        TypeError: ``net`` is not a network.
        ValueError: a pattern without a match, or none of the parameters left.

    Example:
        >>> net = btl.nets.freeze(btl.nets.mlp(jax.random.key(0), (3, 8, 8, 1)), "dense_0/**")
        >>> btl.tree.paths(net.params)
        ['dense_1/bias', 'dense_1/kernel', 'head/bias', 'head/kernel']
        >>> net(net.params, jnp.ones((5, 3))).shape
        (5, 1)
    """
    check_arguments(freeze, locals())
    if not isinstance(net, Net):
        raise TypeError(f"net is {type(net).__name__}; give a Net, as made by nets.from_function and its like")
    frozen = _tree.select(net.params, patterns)
    params = _tree.complement(net.params, frozen)
    if not _tree.paths(params):
        raise ValueError(
            f"patterns is {patterns!r}, which freezes all of {_tree.shown(_tree.paths(net.params))}; leave something "
            "to train"
        )
    return Net(params, with_fixed(net.state, frozen), PartApply(net.apply))
