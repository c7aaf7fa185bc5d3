"""Operations as matrix products: which axes are positions, groups, inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from bayestl._rearrangement import Rearrangement
from bayestl._types import Params
from bayestl.layers._windows import SlidingWindow, patches

Steps = tuple[tuple[str, tuple[int, ...]], ...]


class MatrixForm(NamedTuple):
    """An operation as ``z = a W`` in every group: a (P, g, I), W (g, I, O), z (P, g, O), P positions that share W.

    Attributes:
        kind: ``dense`` or ``convolution``.
        description: details, for inventories.
        positions: P, for one example.
        inputs: from the operation's input to a, for one example.
        weights: from the weights, as the operation takes them, to W.
        outputs: from the operation's output to z.
        is_rewritten: whether the operation is to be computed as ``a W``.
    """

    kind: str
    description: str
    positions: int
    inputs: Callable[[jax.Array], jax.Array]
    weights: Rearrangement
    outputs: Rearrangement
    is_rewritten: bool


def of_product(params: Params, data: int, shapes: Sequence[Any], out_shape: Sequence[int]) -> MatrixForm:
    """A ``dot_general`` with the weights on one side.

    Args:
        params: the primitive's.
        data: which operand is the layer's input, 0 or 1.
        shapes: shapes of the operands.
        out_shape: shape of the output.
    """
    contracting, batch = params["dimension_numbers"]
    lengths = {"shared": shapes[data], "weights": shapes[1 - data]}
    inner = {"shared": tuple(contracting[data]), "weights": tuple(contracting[1 - data])}
    group = {"shared": tuple(batch[data]), "weights": tuple(batch[1 - data])}
    free = {
        side: tuple(axis for axis in range(len(lengths[side])) if axis not in inner[side] + group[side])
        for side in lengths
    }
    p, o = (math.prod(lengths[side][axis] for axis in free[side]) for side in ("shared", "weights"))
    g, i = (math.prod(lengths["shared"][axis] for axis in axes["shared"]) for axes in (group, inner))
    order = (free["shared"] + group["shared"] + inner["shared"], group["weights"] + inner["weights"] + free["weights"])
    inputs = Rearrangement(tuple(shapes[data]), (("transpose", order[0]), ("reshape", (p, g, i))))
    weights = Rearrangement(tuple(shapes[1 - data]), (("transpose", order[1]), ("reshape", (g, i, o))))
    # The output has the batch axes first, then the free axes of the left operand, then those of the right one.
    b, s, w = len(group["shared"]), len(free["shared"]), len(free["weights"])
    first, second = tuple(range(b)), tuple(range(b, b + s + w))
    split = s if data == 0 else w
    shared, outer = (second[:split], second[split:]) if data == 0 else (second[split:], second[:split])
    outputs = Rearrangement(tuple(out_shape), (("transpose", shared + first + outer), ("reshape", (p, g, o))))
    return MatrixForm("dense", _sizes(i, o), p, inputs, weights, outputs, False)


def of_convolution(params: Params, shapes: Sequence[Any], out_shape: Sequence[int]) -> MatrixForm:
    """A ``conv_general_dilated`` with the weights as its kernel.

    Args:
        params: the primitive's.
        shapes: shapes of input and kernel.
        out_shape: shape of the output.
    """
    numbers, g = params["dimension_numbers"], params["feature_group_count"]
    (n, c, *space), (o, i, *places) = numbers.lhs_spec, numbers.rhs_spec
    out_n, out_c, *out_space = numbers.out_spec
    sizes = tuple(shapes[1][axis] for axis in places)
    channels, size, count = shapes[1][i], math.prod(sizes), shapes[1][o] // g
    p = math.prod(out_shape[axis] for axis in (out_n, *out_space))
    window = SlidingWindow(
        (1, *sizes, 1),
        (1, *params["window_strides"], 1),
        ((0, 0), *params["padding"], (0, 0)),
        (1, *params["lhs_dilation"], 1),
        (1, *params["rhs_dilation"], 1),
    )

    def inputs(x: jax.Array) -> jax.Array:
        windows = patches(x.transpose((n, *space, c)), window)
        if g == 1:
            return windows.reshape(p, 1, size * channels)
        return windows.reshape(p, size, g, channels).transpose((0, 2, 1, 3)).reshape(p, g, size * channels)

    steps: Steps = (
        ("transpose", (*places, i, o)),
        ("reshape", (size * channels, g, count)),
        ("transpose", (1, 0, 2)),
    )
    weights = Rearrangement(tuple(shapes[1]), steps)
    steps = (("transpose", (out_n, *out_space, out_c)), ("reshape", (p, g, count)))
    outputs = Rearrangement(tuple(out_shape), steps)
    description = f"{' x '.join(map(str, sizes))}, {_sizes(channels, count)}"
    return MatrixForm("convolution", description, p, inputs, weights, outputs, True)


def _sizes(inputs: int, outputs: int) -> str:
    return f"{inputs} input{'s' * (inputs != 1)}, {outputs} output{'s' * (outputs != 1)}"
