"""An Equinox module as a network."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Inputs, Key, Net, Params
from bayestl.nets._state import Policy, updated
from bayestl.nets._static import ComparedByValue, checked_params


@dataclasses.dataclass(frozen=True)
class _EquinoxApply:
    module: ComparedByValue
    takes_key: bool
    axis_name: str
    policy: Policy = Policy.FROZEN

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        import equinox as eqx

        module = eqx.nn.inference_mode(eqx.combine(params, self.module.value), key is None)
        norms = _norms(module)
        if key is not None:
            module = _converted(module, self.policy)
        num = jax.tree.leaves(inputs)[0].shape[0]
        keys = None if key is None or not self.takes_key else jax.random.split(key, num)

        def one(x: Any, state: Any, key: Key | None) -> tuple[Any, Any]:
            arguments = {"key": key} if self.takes_key else {}
            return (module(x, **arguments), state) if isinstance(state, tuple) else module(x, state, **arguments)

        # Statistics are means over the named axis, the same for every example.
        over = jax.vmap(one, in_axes=(0, None, 0), out_axes=(0, None), axis_name=self.axis_name)
        outputs, new = over(inputs, state, keys)
        if key is None or isinstance(state, tuple):
            return outputs, state
        if self.policy is Policy.BATCH:
            new = _settled(new, norms)
        return outputs, updated(self.policy, state, new, _statistics(state, norms), "Equinox")


def from_equinox(module: Any, state: Any = None, *, axis_name: str = "batch") -> Net:
    """A network from an Equinox module for one example, applied to batches by ``vmap``.

    The parameters are the module's inexact arrays (``eqx.partition(module, eqx.is_inexact_array)``), lifted to at least
    float32; integer arrays stay constants. Called with a key, the module is in training mode and every example gets a
    key of its own, if its call takes ``key``; called with ``key=None`` it is in ``eqx.nn.inference_mode``.

    The state stays as it is, and ``eqx.nn.BatchNorm`` uses its running statistics also with a key, until
    :func:`trained_state` says otherwise.

    Args:
        module: an ``eqx.Module`` with ``module(x)``, or ``module(x, state) -> (outputs, state)`` when there is a state;
            each may take ``key``.
        state: the ``eqx.nn.State`` that ``eqx.nn.make_with_state`` gave along with the module.
        axis_name: the name of the batch axis, as given to ``eqx.nn.BatchNorm``.

    Raises:
        ImportError: Equinox is not installed.
        TypeError: ``module`` is not an Equinox module, or ``state`` not its state.
        ValueError: a module with state and no ``state``; no parameters, or values that are not finite; one array in two
            places, which would become two parameters.

    Example:
        With Equinox installed::

            net = btl.nets.from_equinox(eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0)))
            net(net.params, jnp.ones((5, 3))).shape  # (5, 2)
            net = btl.nets.from_equinox(*eqx.nn.make_with_state(MyNet)(jax.random.key(0)))
    """
    try:
        import equinox as eqx
    except ImportError as error:
        raise ImportError("from_equinox needs Equinox: pip install equinox") from error
    if not isinstance(module, eqx.Module) or not callable(module):
        raise TypeError(f"module is {type(module).__name__}; give an eqx.Module that can be called on one example")
    _check_state(module, state)
    params, static = eqx.partition(module, eqx.is_inexact_array)
    _check_tied(params)
    takes_key = "key" in inspect.signature(module.__call__).parameters
    return Net(
        checked_params(params),
        () if state is None else jax.tree.map(jnp.asarray, state),
        _EquinoxApply(ComparedByValue(static), takes_key, axis_name),
    )


def _check_tied(params: Params) -> None:
    """Raise when one array lies in two places, since updates would see two parameters and a prior count both."""
    places: dict[int, str] = {}
    for path, leaf in _tree.by_paths(params).items():
        first = places.setdefault(id(leaf), path)
        if first != path:
            raise ValueError(
                f"module holds one array at {first!r} and {path!r}, as eqx.tree_at leaves it, and these would be two "
                "parameters; for one parameter in both places use eqx.nn.Shared, for two give one of them a copy: "
                "jnp.array(x)"
            )


def _check_state(module: Any, state: Any) -> None:
    import equinox as eqx

    if state is not None and not isinstance(state, eqx.nn.State):
        raise TypeError(f"state is {type(state).__name__}; give the eqx.nn.State that eqx.nn.make_with_state returned")
    indices = [x for x in _nodes(module, eqx.nn.StateIndex) if isinstance(x, eqx.nn.StateIndex)]
    if state is None and indices:
        raise ValueError(
            f"module keeps state in {len(indices)} places, and state is None; make both together: "
            "from_equinox(*eqx.nn.make_with_state(MyModule)(...))"
        )
    if any(eqx.is_array(x) for index in indices for x in jax.tree.leaves(index)):
        raise ValueError("module still holds its state; make it with eqx.nn.make_with_state, which takes it out")


def _nodes(module: Any, kind: Any) -> list[Any]:
    return jax.tree.leaves(module, is_leaf=lambda x: isinstance(x, kind))


def _norms(module: Any) -> list[Any]:
    import equinox as eqx

    return [x for x in _nodes(module, eqx.nn.BatchNorm) if isinstance(x, eqx.nn.BatchNorm)]


def _converted(module: Any, policy: Policy) -> Any:
    """The module with batch normalisation set as the policy says."""
    import equinox as eqx

    def convert(node: Any) -> Any:
        if not isinstance(node, eqx.nn.BatchNorm):
            return node
        node = eqx.nn.inference_mode(node, policy is Policy.FROZEN)
        if policy is Policy.BATCH:
            object.__setattr__(node, "momentum", 0.0)  # a static field of a copy, past the guard of its dataclass
        return node

    return jax.tree.map(convert, module, is_leaf=lambda x: isinstance(x, eqx.nn.BatchNorm))


def _settled(state: Any, norms: list[Any]) -> Any:
    """The state with no count of batches left, by which the statistics would be scaled again."""
    for norm in norms:
        if norm.batch_counter is not None:
            state = state.set(norm.batch_counter, jnp.zeros_like(state.get(norm.batch_counter)))
    return state


def _statistics(state: Any, norms: list[Any]) -> set[str]:
    """Paths of what the layers keep in the state, whose first keys count its markers."""
    names = ("ema_first_time_index", "ema_state_index", "batch_counter", "batch_state_index")
    indices = [index for norm in norms for name in names if (index := getattr(norm, name)) is not None]
    markers, state_markers = state.tree_flatten()[1], {index.marker for index in indices}
    return {path for path in _tree.paths(state) if markers[int(path.split("/")[0])] in state_markers}
