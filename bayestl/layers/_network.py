"""A network together with its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Inputs, Params
from bayestl.layers._find import Layer, layers_of
from bayestl.layers._inventory import Inventory, inventory_of
from bayestl.layers._program import Program, run_all, trace
from bayestl.layers._uses import Use, varying


class LayeredNetwork(NamedTuple):
    """A network at given parameters, with its layers. Made by :func:`find`.

    Attributes:
        program: its operations, for one example.
        layers: the parameters that enter only products and look-ups.
        operations: the uses of all other parameters, biases included.
        outputs: numbers of the leaves that reach the outputs without meeting the inputs.
        paths: those of the leaves.
        leaves: the parameters.
        constants: the values that do not depend on the inputs, value number to array.
        varying: the values that do.
    """

    program: Program
    layers: tuple[Layer, ...]
    operations: tuple[Use, ...]
    outputs: tuple[int, ...]
    paths: tuple[str, ...]
    leaves: Sequence[jax.Array]
    constants: dict[int, Any]
    varying: frozenset[int]

    @property
    def inventory(self) -> Inventory:
        """How every parameter enters the network, in words."""
        return inventory_of(self.program, self.paths, self.layers, self.operations, self.outputs)


def check_examples(inputs: Inputs) -> None:
    """Raise on inputs without an array, or with one that has no axis of examples."""
    shapes = [jnp.shape(x) for x in jax.tree.leaves(inputs)]
    if not shapes or () in shapes:
        raise ValueError(
            f"inputs hold arrays of shapes {shapes}; give one or more, each with a leading axis of examples, (B, ...)"
        )


def examples_of(network: LayeredNetwork, inputs: Inputs) -> list[jax.Array]:
    """The leaves of a batch's inputs (B, 1, ...), so that every example has a leading axis of 1.

    Raises:
        ValueError: inputs of other shapes per example than the network was traced with.
    """
    check_examples(inputs)
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(inputs)]
    have = [x.shape[1:] for x in leaves]
    own = [network.program.shapes[value].shape[1:] for value in network.program.inputs]
    if have != own or len({len(x) for x in leaves}) > 1:
        raise ValueError(
            f"inputs have shapes {[x.shape for x in leaves]}, but the network was found with one example of shapes "
            f"{own}; give (B, ...) with these, or find the layers for the new shapes"
        )
    return [x[:, None] for x in leaves]


def find(network: Callable[[Params, Any], Any], params: Params, inputs: Inputs) -> LayeredNetwork:
    """The layers of a network, written in any library: they are found in its traced program.

    A layer is a parameter that enters matrix products, convolutions or look-ups of rows, unchanged or rearranged: once,
    or several times with the same weights, or in every step of a ``lax.scan``. Layers inside ``jax.checkpoint`` are
    found too. Works under ``jit``. If only the inventory is needed, wrap the call in ``jax.eval_shape``, which computes
    nothing.

    Args:
        network: deterministic, ``(params, inputs) -> outputs``, each example independent of the others.
        params: the parameters.
        inputs: any number of examples; only their shapes and dtypes matter.

    Raises:
        ValueError: outputs whose leading axis is not that of the examples.

    Example:
        >>> def network(params, tokens):
        ...     return jnp.tanh(params["table"][tokens].mean(1)) @ params["head"] + params["bias"]
        >>> params = {"bias": jnp.zeros(2), "head": jnp.ones((4, 2)), "table": jnp.ones((100, 4))}
        >>> print(btl.layers.find(network, params, jnp.zeros((5, 7), int)).inventory)
        bias   bias     of 'head'
        head   dense    4 inputs, 2 outputs
        table  look-up  100 rows of 4, 7 positions
    """
    check_arguments(find, locals())
    check_examples(inputs)
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *jnp.shape(x)[1:]), jnp.asarray(x).dtype), inputs)
    program = trace(network, params, example)
    for value in program.outputs:
        if program.shapes[value].shape[:1] != (1,):
            raise ValueError(
                f"for a batch of one example the network gives an output of shape {program.shapes[value].shape}; a "
                "leading axis of length 1 is needed (a squeeze() without an axis removes it)"
            )
    layers, operations, outputs = layers_of(program)
    leaves, values = jax.tree.leaves(params), varying(program, outputs)
    constants = {**program.constants, **dict(zip(program.params, leaves, strict=True))}
    run_all([op for op in program.ops if not values & set(op.outputs)], constants)
    paths = tuple(_tree.paths(params))
    return LayeredNetwork(program, layers, operations, outputs, paths, leaves, constants, values)
