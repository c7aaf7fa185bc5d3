"""A Flax NNX module as a network."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Inputs, Key, Net, Params
from bayestl.nets._state import Policy, updated
from bayestl.nets._static import ComparedByValue, call_arguments, checked_params


@dataclasses.dataclass(frozen=True)
class _RngStreams:
    """The random streams of a module without their values: every key leaf is derived from the key of the call."""

    treedef: Any
    shapes: tuple[tuple[bool, tuple[int, ...]], ...]  # of each leaf: is it a key, or the count of draws; its shape

    def seeded(self, key: Key | None) -> Any:
        base = jax.random.key(0) if key is None else key
        if jnp.issubdtype(base.dtype, jnp.uint32):
            base = jax.random.wrap_key_data(base)
        leaves = []
        for number, (is_key, shape) in enumerate(self.shapes):
            own = jax.random.fold_in(base, number)
            leaves.append((jax.random.split(own, shape) if shape else own) if is_key else jnp.zeros(shape, jnp.uint32))
        return jax.tree.unflatten(self.treedef, leaves)


@dataclasses.dataclass(frozen=True)
class _NNXApply:
    graph: ComparedByValue
    streams: _RngStreams
    train: ComparedByValue
    evaluate: ComparedByValue
    policy: Policy = Policy.FROZEN

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        from flax import nnx

        # Without a copy the module's in-place updates would reach the caller's own variables.
        module = nnx.merge(self.graph.value, params, self.streams.seeded(key), state, copy=True)
        if key is None:
            return module(inputs, **dict(self.evaluate.value)), state  # its graph was kept in eval mode
        module.train()
        norms = _convert_norms(module, self.policy)
        outputs = module(inputs, **dict(self.train.value))
        statistics = {path for path in _tree.paths(state) if path.rpartition("/")[0] in norms}
        return outputs, updated(self.policy, state, _split(module)[-1], statistics, "Flax NNX")


def _convert_norms(module: Any, policy: Policy) -> set[str]:
    """Make batch normalisation do as the policy says, also where the call asks otherwise. The paths of its layers."""
    from flax import nnx

    norms = {"/".join(map(str, path)): layer for path, layer in nnx.iter_modules(module)}
    norms = {path: layer for path, layer in norms.items() if isinstance(layer, nnx.BatchNorm)}
    for layer in norms.values():
        if policy is not Policy.TRAINED:
            layer.__class__ = _decided(type(layer), policy is Policy.FROZEN)
        if policy is Policy.BATCH:
            layer.momentum = 0.0
    return set(norms)


@functools.cache
def _decided(kind: Any, use_running_average: bool) -> Any:
    """The class of a normalisation layer, with the argument ``use_running_average`` of its calls settled."""

    class Decided(kind):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args[:1], **{**kwargs, "use_running_average": use_running_average})

    return Decided


def _split(module: Any) -> tuple[Any, Any, Any, Any]:
    """Graph, parameters, random streams, everything else; recorded activations are dropped."""
    from flax import nnx

    nnx.pop(module, nnx.Intermediate)
    graph, params, streams, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return graph, params, streams, state


def from_nnx(module: Any, *, train: Mapping[str, Any] | None = None, evaluate: Mapping[str, Any] | None = None) -> Net:
    """A network from a Flax NNX module, which stays as it is.

    The parameters are the ``nnx.State`` of its ``nnx.Param`` variables, lifted to at least float32; all other variables
    (``nnx.BatchStat``) are the state, except its random streams. Called with a key, the module is in the mode that its
    ``train()`` sets and draws its noise from that key alone; called with ``key=None`` it is in the mode that ``eval()``
    sets.

    The state stays as it is, and ``nnx.BatchNorm`` (other normalisation layers decide by themselves) uses its running
    statistics also with a key, until :func:`trained_state` says otherwise.

    Args:
        module: an ``nnx.Module`` whose call takes the inputs first.
        train: further keyword arguments of the call when a key is given.
        evaluate: further keyword arguments of the call when ``key=None``.

    Raises:
        TypeError: ``module`` is not an NNX module, or a parameter is not floating point.
        ValueError: no parameters, or values that are not finite.

    Example:
        >>> from flax import nnx
        >>> net = btl.nets.from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
        >>> btl.tree.paths(net.params)
        ['bias', 'kernel']
        >>> net(net.params, jnp.ones((5, 3))).shape
        (5, 2)
    """
    from flax import nnx

    if not isinstance(module, nnx.Module):
        raise TypeError(f"module is {type(module).__name__}; give an nnx.Module (from_linen takes linen modules)")
    own = nnx.clone(module)
    own.eval()
    graph, params, streams, state = _split(own)
    apply = _NNXApply(
        ComparedByValue(graph),
        _without_values(streams),
        call_arguments("train", train),
        call_arguments("evaluate", evaluate),
    )
    return Net(checked_params(params), state, apply)


def _without_values(streams: Any) -> _RngStreams:
    leaves, treedef = jax.tree.flatten(streams)
    return _RngStreams(treedef, tuple((jnp.issubdtype(x.dtype, jax.dtypes.prng_key), x.shape) for x in leaves))
