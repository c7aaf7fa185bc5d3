"""Operations that put the numbers of an array into another order and shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayestl.layers._products import Steps
from bayestl.layers._program import Op, Program

_MOVES = {
    "reshape",
    "transpose",
    "squeeze",
    "expand_dims",
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "copy_p",
}


def moves(program: Program, ops: Sequence[Op], chain: Sequence[int]) -> Steps | None:
    """The operations of a chain as steps of a rearrangement; None if they do more than rearrange."""
    steps: Steps = ()
    for number in chain:
        step = move(program, ops[number])
        if step is None:
            return None
        steps = (*steps, *step)
    return steps


def move(program: Program, op: Op) -> Steps | None:
    """An operation as steps of a rearrangement; None if it does more than rearrange."""
    before, after = (program.shapes[value] for value in (op.inputs[0], op.outputs[0]))
    if op.name == "transpose":
        return (("transpose", tuple(op.eqn.params["permutation"])),)
    if op.name == "rev":  # the kernel of a transposed convolution, in Keras and with transpose_kernel=True
        return (("reverse", tuple(op.eqn.params["dimensions"])),)
    if op.name in _MOVES and before.size == after.size:
        return () if before.shape == after.shape else (("reshape", tuple(after.shape)),)
    return None


def spread(program: Program, ops: Sequence[Op], chain: Sequence[int], source: int) -> np.ndarray | None:
    """Which number of ``source`` ends up where at the end of a chain; None if it is not just broadcast."""
    shape = program.shapes[source].shape
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    for op in (ops[number] for number in chain):
        shape = program.shapes[op.outputs[0]].shape
        if op.name == "transpose":
            x = x.transpose(op.eqn.params["permutation"])
        elif op.name == "rev":
            x = np.flip(x, op.eqn.params["dimensions"])
        elif op.name == "broadcast_in_dim":
            axes = [1] * len(shape)
            for axis, length in zip(op.eqn.params["broadcast_dimensions"], x.shape, strict=True):
                axes[axis] = length
            x = np.broadcast_to(x.reshape(axes), shape)
        elif op.name in _MOVES:
            x = x.reshape(shape)
        else:
            return None
    return x
