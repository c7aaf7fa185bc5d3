"""A network together with its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Params
from bayestl.layers._find import Uses, uses_of_parameters
from bayestl.layers._inventory import Inventory
from bayestl.layers._program import Program, run, trace


class LayeredNetwork(NamedTuple):
    """A network at some parameters, with its layers. Made by :func:`find`.

    Attributes:
        program: its operations, for one example.
        uses: how the parameters enter it.
        leaves: the parameters.
        constants: the values that do not depend on the inputs, value number to array.
    """

    program: Program
    uses: Uses
    leaves: Sequence[jax.Array]
    constants: dict[int, Any]

    @property
    def inventory(self) -> Inventory:
        """How every parameter enters the network, in words."""
        return self.uses.inventory


def find(network: Callable[[Params, Any], Any], params: Params, inputs: Any) -> LayeredNetwork:
    """The layers of a network, whatever it is written in: they are found in its traced program.

    Works under ``jit``. Where only the inventory is wanted, ``jax.eval_shape`` around it computes nothing.

    Args:
        network: deterministic, ``(params, inputs) -> outputs``, every example on its own.
        params: where.
        inputs: any number of examples; only their shapes and dtypes matter.

    Raises:
        ValueError: outputs whose leading axis is not that of the examples.

    Example:
        >>> def network(params, x):
        ...     return jnp.tanh(x @ params["first"]) @ params["second"] + params["bias"]
        >>> params = {"bias": jnp.zeros(2), "first": jnp.ones((3, 4)), "second": jnp.ones((4, 2))}
        >>> print(btl.layers.find(network, params, jnp.ones((5, 3))).inventory)
        bias    layer  bias of 'second'
        first   layer  dense
        second  layer  dense
    """
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *jnp.shape(x)[1:]), jnp.asarray(x).dtype), inputs)
    program = trace(network, params, example)
    for value in program.outputs:
        if program.shapes[value].shape[:1] != (1,):
            raise ValueError(
                f"for a batch of one example the network gives an output of shape {program.shapes[value].shape}; a "
                "leading axis of length 1 is needed (a squeeze() without an axis takes it away)"
            )
    uses, leaves = uses_of_parameters(program, _tree.paths(params)), jax.tree.leaves(params)
    constants = {**program.constants, **dict(zip(program.params, leaves, strict=True))}
    for op in program.ops:
        if not uses.varying & set(op.outputs):
            constants |= zip(op.outputs, run(op, [constants[value] for value in op.inputs]), strict=True)
    return LayeredNetwork(program, uses, leaves, constants)
