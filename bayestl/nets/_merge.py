"""The plain network again, with what its adapters have learned in its weights."""

from __future__ import annotations

import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Net, Params
from bayestl.nets._adapt import AdaptedApply


def merge(net: Net, params: Params | None = None) -> Net:
    """The network that :func:`adapt` was given, with the weights ``W + s A B``.

    For predictions without the cost of adapters, or as a source for the next task. It has the parameters, the paths and
    the state of the network that was adapted.

    Args:
        net: made by :func:`adapt`.
        params: its parameters, such as those of a fit; by default its own.

    Raises:
        TypeError: a network without adapters.
        ValueError: parameters of another structure.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (3, 8, 1))
        >>> adapted = btl.nets.adapt(jax.random.key(1), net, jnp.ones((1, 3)), rank=2)
        >>> params = jax.tree.map(jnp.ones_like, adapted.params)
        >>> merged = btl.nets.merge(adapted, params)
        >>> btl.tree.paths(merged.params) == btl.tree.paths(net.params)
        True
        >>> x = jnp.ones((5, 3))
        >>> jnp.allclose(merged(merged.params, x), adapted(params, x), rtol=1e-5).item()
        True
    """
    check_arguments(merge, locals())
    apply = getattr(net, "apply", None)
    if not isinstance(net, Net) or not isinstance(apply, AdaptedApply):
        raise TypeError("net has no adapters; give the Net that nets.adapt made, before it is wrapped in another")
    if params is None:
        params = net.params
    else:
        _tree.check_same_structure("params", params, "net.params", net.params, "give parameters of the adapted network")
    factors = _tree.by_paths(params)
    whole = apply.whole(params, net.state)
    values = _tree.by_paths(whole)
    for path, matrix in apply.weights:
        groups, inputs, outputs = matrix.result
        a = factors[f"{path}/a"].reshape(groups, inputs, -1)
        b = factors[f"{path}/b"].reshape(groups, -1, outputs)
        product = jnp.matmul(a, b, precision=Precision.HIGHEST)
        values[path] = values[path] + apply.scale * matrix.back(product).astype(values[path].dtype)
    return Net(_tree.restructure(values, whole), net.state["net"], apply.apply)
