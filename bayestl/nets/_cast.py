"""A network that computes in lower precision than its parameters are kept in."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._types import Apply, DType, Inputs, Key, Net, Params


@dataclasses.dataclass(frozen=True)
class _CastApply:
    apply: Apply
    dtype: Any

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        outputs, new_state = self.apply(_to(params, self.dtype), state, _to(inputs, self.dtype), key)
        # Sums over a batch are what running statistics are made of: they stay as precise as they came.
        new_state = jax.tree.map(lambda new, old: _like(new, old), new_state, state)
        return _to(outputs, jnp.float32), new_state


def cast(net: Net, dtype: DType) -> Net:
    """``net`` computing in ``dtype``, with parameters, priors, gradients and log densities as they were.

    For half the memory of activations and the full speed of matrix units. Parameters and floating-point inputs are
    rounded to ``dtype`` on the way in, outputs come back in float32; the network's state keeps its own dtypes.

    Args:
        net: any network.
        dtype: a floating-point dtype, ``jnp.bfloat16`` as a rule. float16 has no room for large activations or small
            gradients.

    Raises:
        TypeError: ``net`` is not a network, or ``dtype`` is not floating point.

    Example:
        >>> net = btl.nets.cast(btl.nets.mlp(jax.random.key(0), (3, 8, 1)), jnp.bfloat16)
        >>> net(net.params, jnp.ones((5, 3))).dtype.name, net.params["head"]["kernel"].dtype.name
        ('float32', 'float32')
    """
    check_arguments(cast, locals())
    if not isinstance(net, Net):
        raise TypeError(f"net is {type(net).__name__}; give a Net, as made by nets.from_function and its like")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype is {dtype!r}; give a floating-point dtype to compute in, such as jnp.bfloat16")
    return Net(net.params, net.state, _CastApply(net.apply, jnp.dtype(dtype)))


def _to(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _like(new: Any, old: Any) -> Any:
    return new.astype(jnp.asarray(old).dtype) if jnp.issubdtype(new.dtype, jnp.floating) else new
