"""A Flax linen module as a network."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Inputs, Key, Net, Params
from bayestl.nets._state import Policy, updated
from bayestl.nets._static import ComparedByValue, call_arguments, checked_params


@dataclasses.dataclass(frozen=True)
class _LinenApply:
    module: ComparedByValue
    train: ComparedByValue
    evaluate: ComparedByValue
    streams: tuple[str, ...]
    policy: Policy = Policy.FROZEN

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        module, variables = self.module.value, {"params": params, **dict(state)}
        if key is None:
            return module.apply(variables, inputs, mutable=False, **dict(self.evaluate.value)), state
        keys = [key] if len(self.streams) == 1 else jax.random.split(key, len(self.streams))
        rngs = dict(zip(self.streams, keys, strict=True))
        train = dict(self.train.value)
        if not state:
            return module.apply(variables, inputs, rngs=rngs, mutable=False, **train), state
        norms: set[str] = set()
        with _intercepted(self.policy, norms):
            outputs, changed = module.apply(variables, inputs, rngs=rngs, mutable=list(state), **train)
        # The state keeps its own containers, so that its structure is the same after every step.
        changed = _tree.restructure(_tree.by_paths({name: changed[name] for name in state}), state)
        statistics = {path for path in _tree.paths(state) if _in_norm(path, norms)}
        return outputs, updated(self.policy, state, changed, statistics, "Flax linen")


@contextlib.contextmanager
def _intercepted(policy: Policy, norms: set[str]) -> Iterator[None]:
    """Calls of ``BatchNorm`` inside do as the policy says, whatever the module asks of them; their paths are noted."""
    import flax.linen as nn

    def intercept(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any) -> Any:
        layer = context.module
        if not isinstance(layer, nn.BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        norms.add("/".join(layer.path))
        # A layer with the attribute set refuses the argument.
        with _attributes(layer, use_running_average=None, momentum=0.0 if policy is Policy.BATCH else layer.momentum):
            return call(*args[:1], **{**kwargs, "use_running_average": policy is Policy.FROZEN})

    with contextlib.nullcontext() if policy is Policy.TRAINED else nn.intercept_methods(intercept):
        yield


@contextlib.contextmanager
def _attributes(layer: Any, **values: Any) -> Iterator[None]:
    """``layer``, which lives for one call only, with other attributes, past the guard of its dataclass."""
    before = {name: getattr(layer, name) for name in values}
    try:
        for name, value in values.items():
            object.__setattr__(layer, name, value)
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(layer, name, value)


def _in_norm(path: str, norms: set[str]) -> bool:
    """Whether ``collection/module/.../leaf`` belongs to one of the modules."""
    return "/".join(path.split("/")[1:-1]) in norms


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
    the state. Called with a key, the module draws its noise from it; called with ``key=None`` it gets no randomness.
    Linen modules have no common switch between training and use: name the call arguments that yours takes.

    The state stays as it is, and ``nn.BatchNorm`` (other normalisation layers decide by themselves) uses its running
    statistics also with a key, until :func:`trained_state` says otherwise.

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
        ComparedByValue(module), call_arguments("train", train), call_arguments("evaluate", evaluate), tuple(streams)
    )
    return Net(checked_params(variables["params"]), jax.tree.map(jnp.asarray, state) or (), apply)
