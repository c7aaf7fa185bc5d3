"""A network with learned observation noise."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Apply, Inputs, Key, Net, Params


@dataclasses.dataclass(frozen=True)
class _LogScaleApply:
    apply: Apply

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        location, state = self.apply(params["net"], state, inputs, key)
        return (location, jnp.broadcast_to(params["log_scale"], location.shape)), state


def with_log_scale(net: Net, initial_scale: float | Float[Array, " outputs"] = 1.0) -> Net:
    """``net`` with one more parameter, the log standard deviation of the observation noise.

    For regression whose noise is learned, under a prior, with the rest: outputs become ``(location, log_scale)``, both
    in the shape of the net's outputs. The parameters become ``{"net": ..., "log_scale": ...}``.

    Args:
        net: network with outputs (B,) or (B, K).
        initial_scale: standard deviation to start from, in the unit of the targets, > 0; a scalar, or (K,) for one per
            output.

    Raises:
        ValueError: ``initial_scale`` is not positive and finite, or has more than one axis.

    Example:
        >>> net = btl.nets.with_log_scale(btl.nets.mlp(jax.random.key(0), (3, 8, 1)), initial_scale=0.5)
        >>> location, log_scale = net(net.params, jnp.ones((5, 3)))
        >>> location.shape, log_scale.shape, float(jnp.exp(log_scale[0, 0]))
        ((5, 1), (5, 1), 0.5)
    """
    check_arguments(with_log_scale, locals())
    if not isinstance(net, Net):
        raise TypeError(f"net is {type(net).__name__}; give a Net, as made by nets.from_function and its like")
    scale = jnp.asarray(initial_scale, dtype=float)
    if scale.ndim > 1:
        raise ValueError(f"initial_scale has shape {scale.shape}; give a scalar, or one number per output, (K,)")
    _tree.check_positive("initial_scale", scale, "a standard deviation must be positive")
    return Net({"net": net.params, "log_scale": jnp.log(scale)}, net.state, _LogScaleApply(net.apply))
