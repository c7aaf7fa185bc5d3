"""A Flax linen module as a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Key, Net, Params
from bayestl.nets._static import Static, call_arguments, checked_params


@dataclasses.dataclass(frozen=True)
class _LinenApply:
    module: Static
    train: Static
    evaluate: Static
    streams: tuple[str, ...]

    def __call__(self, params: Params, state: Any, inputs: Any, key: Key | None) -> tuple[Any, Any]:
        module, variables = self.module.value, {"params": params, **dict(state)}
        if key is None:
            return module.apply(variables, inputs, mutable=False, **dict(self.evaluate.value)), state
        keys = [key] if len(self.streams) == 1 else jax.random.split(key, len(self.streams))
        rngs = dict(zip(self.streams, keys, strict=True))
        train = dict(self.train.value)
        if not state:
            return module.apply(variables, inputs, rngs=rngs, mutable=False, **train), state
        outputs, changed = module.apply(variables, inputs, rngs=rngs, mutable=list(state), **train)
        # The state keeps its own containers, so that its structure is the same after every step.
        changed = _tree.by_paths({name: changed[name] for name in state})
        return outputs, _tree.restructure(changed, state)


def from_linen(
    module: Any,
    variables: Mapping[str, Any],
    *,
    train: Mapping[str, Any] | None = None,
    evaluate: Mapping[str, Any] | None = None,
    streams: Sequence[str] = ("dropout",),
) -> Net:
    """A network from a Flax linen module and its variables.

    The parameters are ``variables["params"]``, lifted to at least float32; all other collections (``batch_stats``) are
    the state. Called with a key, the module draws its noise from it and updates the state; called with ``key=None`` it
    gets no randomness and its state stays as it is. Linen modules have no common switch between training and use: name
    the call arguments that yours takes.

    Args:
        module: a ``flax.linen.Module`` whose call takes the inputs first.
        variables: what ``module.init`` returned, or loaded weights in that form.
        train: keyword arguments of the call when a key is given, such as ``{"train": True}``.
        evaluate: keyword arguments of the call when ``key=None``, such as ``{"train": False}``.
        streams: names of the module's random streams; one takes the key itself, several a split of it.

    Raises:
        TypeError: ``variables``, ``train`` or ``evaluate`` is not a mapping, or a parameter is not floating point.
        ValueError: ``variables`` without ``"params"``, or values that are not finite.

    Example:
        >>> import flax.linen as nn
        >>> module = nn.Dense(2)
        >>> net = btl.nets.from_linen(module, module.init(jax.random.key(0), jnp.ones((1, 3))))
        >>> net(net.params, jnp.ones((5, 3))).shape
        (5, 2)
    """
    if not isinstance(variables, Mapping):
        raise TypeError(f"variables is {type(variables).__name__}; give what module.init returned, a mapping")
    if "params" not in variables:
        raise ValueError(
            f'variables has no "params"; its collections are {_tree.shown(list(variables))}: give all that module.init '
            'returned, or {"params": params}'
        )
    if isinstance(streams, str) or not streams:
        raise TypeError(f'streams is {streams!r}; give a sequence of names, such as ("dropout",)')
    state = {name: variables[name] for name in variables if name != "params"}
    apply = _LinenApply(
        Static(module), call_arguments("train", train), call_arguments("evaluate", evaluate), tuple(streams)
    )
    return Net(checked_params(variables["params"]), jax.tree.map(jnp.asarray, state) or (), apply)
