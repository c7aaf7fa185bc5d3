"""A Flax NNX module as a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._types import Key, Net, Params
from bayestl.nets._static import Static, call_arguments, checked_params


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
    train_graph: Static
    evaluate_graph: Static
    streams: _RngStreams
    train: Static
    evaluate: Static

    def __call__(self, params: Params, state: Any, inputs: Any, key: Key | None) -> tuple[Any, Any]:
        from flax import nnx

        graph, arguments = (self.evaluate_graph, self.evaluate) if key is None else (self.train_graph, self.train)
        # Without a copy the module's in-place updates would reach the caller's own variables.
        module = nnx.merge(graph.value, params, self.streams.seeded(key), state, copy=True)
        outputs = module(inputs, **dict(arguments.value))
        return outputs, state if key is None else _split(module)[-1]


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
    ``train()`` sets, draws its noise from that key alone and updates the state; called with ``key=None`` it is in the
    mode that ``eval()`` sets and the state stays as it is.

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
    own.train()
    train_graph, params, streams, state = _split(own)
    own.eval()
    apply = _NNXApply(
        Static(train_graph),
        Static(_split(own)[0]),
        _without_values(streams),
        call_arguments("train", train),
        call_arguments("evaluate", evaluate),
    )
    return Net(checked_params(params), state, apply)


def _without_values(streams: Any) -> _RngStreams:
    leaves, treedef = jax.tree.flatten(streams)
    return _RngStreams(treedef, tuple((jnp.issubdtype(x.dtype, jax.dtypes.prng_key), x.shape) for x in leaves))
